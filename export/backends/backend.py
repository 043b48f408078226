"""The record of a format: what its artifacts can hold, and the functions that write, read and measure them.

export/backends/NAME/__init__.py holds one, called `BACKEND`. It imports neither torch nor a converter, so that a
command line can answer at once; the functions that need them are `Lazy`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.activation_choice import Choices
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.engines.facts import EngineFacts

if TYPE_CHECKING:
    from pocketdiffusion.export.backends.taps import Layer, Tapped
    from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
    from pocketdiffusion.export.component import Component
    from pocketdiffusion.quantize.float16_range import Note, Range
    from pocketdiffusion.runtime.bundle.graph_needs import Engine, Memory, Unit
    from pocketdiffusion.runtime.bundle.manifest import Draft, Graph
    from pocketdiffusion.runtime.graph_spec import GraphSpec
    from pocketdiffusion.runtime.runner import Runner

# Of a layer's result of rank 4: pictures as torch has them; [batch, height, width, channels]; as torch, but tokens are
# [batch, channels, 1, tokens].
Layout = Literal["channels_first", "channels_last", "tokens_last"]


@dataclass(frozen=True)
class Refusal:
    """`reason` completes "Core ML cannot hold it: ..."; `nearest` is the recipe to take instead."""

    reason: str
    nearest: str


@dataclass(frozen=True)
class Package:
    """A distribution of the package index: what it is for, and the command that installs it."""

    name: str
    purpose: str
    install: str


class Emit(Protocol):
    """Write one artifact of `part` below `folder`/FORMAT and return its record. Raises UserError for options that the
    backend does not have, and ProofError where the file is not what it should be."""

    def __call__(
        self, part: "Component", artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan
    ) -> "Graph": ...


def no_companions(
    folder: Path, graphs: Mapping[str, "Graph"], checkpoint: "Checkpoint", size: tuple[int, int]
) -> Mapping[str, str]:
    """Write nothing: no other library opens the folder of the format."""
    return {}


def no_script(folder: Path, draft: "Draft") -> None:
    """Write nothing."""


def no_differences(draft: "Draft") -> list[str] | None:
    """Return None: no other pipeline draws with such artifacts."""
    return None


@dataclass(frozen=True)
class Backend:
    """One format of artifacts."""

    name: str  # of its folder in export/backends and in a bundle, and of its engine's file in runtime/engines
    engine: EngineFacts
    profiles: tuple[str, ...]  # the dialects
    default: Artifact  # what it is where the user asks a phone for a format that its target does not name
    activations: Mapping[str, Choices]  # by profile
    emit: Emit
    refusal: Callable[[Scheme, str], Refusal | None]  # why a profile cannot hold a weight so, None where it can
    search_storages: Callable[[str], tuple[Scheme, ...]]  # by profile: of the recipe "mixed", the smallest first
    # taps: what each layer of the original is in the file, in the order of execution; a runner that shows results
    layers: Callable[[Path, Iterable[str]], "list[Layer]"]
    open_tapped: "Callable[[Path, GraphSpec, tuple[str, ...]], Tapped]"
    # fp16 emulation: a runner that notes the largest magnitude of each result, and rounds it to float16 where asked
    open_replay: "Callable[[Path, GraphSpec, Literal['float16', 'float32'], Note], Runner]"
    # capabilities: what the file asks of an engine, and the compute units that it is known good or bad on
    needs: "Callable[[Path, Graph], Engine]"
    units: "Callable[[Path, Graph], dict[str, Unit]]"
    count_memory: "Callable[[Path], Memory]"
    layout: Layout = "channels_first"
    proved_on: str | None = None  # the compute unit whose own engine the gate runs; None: another program runs the file
    largest: int | None = None  # bytes of weights that a file may hold; None: any number
    xnnpack_rounding: bool = False  # int8 operators give int8, with a dynamic range for each row: see export/quantized
    # The names of results to keep in float32 so that none of the ranges overflows float16; None: it has no such islands
    find_islands: "Callable[[Path, Sequence[Range]], list[str]] | None" = None
    tools: tuple[str, ...] = ()  # distributions that write and run the files: a bundle states their versions
    packages: tuple[Package, ...] = ()  # distributions that `devices list` looks for
    converter: Package | None = None  # what must be installed beside the export extra
    # Files by which another library opens the folder of the format; returns where tokenizers lie then, by their names.
    write_companions: "Callable[[Path, Mapping[str, Graph], Checkpoint, tuple[int, int]], Mapping[str, str]]" = (
        no_companions
    )
    write_script: "Callable[[Path, Draft], None]" = no_script  # of the same kind, written once the manifest is known
    reader_differences: "Callable[[Draft], list[str] | None]" = no_differences  # what that library draws otherwise
