"""The record of a format: its properties, and the functions that write, read and measure its artifacts.

export/backends/NAME/__init__.py holds one, called `BACKEND`. It imports neither torch nor a converter, so that a
command line can answer at once; the functions that need them are `Lazy`. An artifact is opened by `open_runner` of the
format's engine, runtime/engines/NAME.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.activation_choice import Choices
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.engines.facts import EngineFacts

if TYPE_CHECKING:
    from pocketdiffusion.export.backends.intermediate_outputs import Layer, LayerOutputsRunner
    from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
    from pocketdiffusion.export.component import Component
    from pocketdiffusion.quantize.float16_range import Note, Range
    from pocketdiffusion.runtime.bundle.graph_needs import Engine, Memory, Unit
    from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
    from pocketdiffusion.runtime.graph_spec import GraphSpec
    from pocketdiffusion.runtime.runner import Runner

# Layout of a layer's output of rank 4: [batch, channels, height, width] as in torch; [batch, height, width, channels];
# as in torch, with tokens as [batch, channels, 1, tokens].
Layout = Literal["channels_first", "channels_last", "tokens_last"]


@dataclass(frozen=True)
class Refusal:
    """`reason` completes the sentence "Core ML cannot hold it: ..."; `nearest` is the recipe to use instead."""

    reason: str
    nearest: str


@dataclass(frozen=True)
class Package:
    """A distribution of the package index, its purpose, and the command that installs it."""

    name: str
    purpose: str
    install: str


class Emit(Protocol):
    """Write one artifact of `part` below `folder`/FORMAT and return its record. Raise UserError for options that the
    backend does not have, and ProofError if the file that was written fails a check."""

    def __call__(
        self, part: "Component", artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan
    ) -> "Graph": ...


def no_companions(
    folder: Path, graphs: Mapping[str, "Graph"], checkpoint: "Checkpoint", size: tuple[int, int]
) -> Mapping[str, str]:
    """Write nothing and return {}: no other library opens the folder of the format."""
    return {}


def no_script(folder: Path, draft: "UnsealedManifest") -> None:
    """Write no script."""


def no_differences(draft: "UnsealedManifest") -> list[str] | None:
    """Return None: no other pipeline draws with artifacts of this format."""
    return None


@dataclass(frozen=True)
class Backend:
    """One format of artifacts."""

    name: str  # also the name of its folder in export/backends and in a bundle, and of its engine's file
    engine: EngineFacts
    profiles: Mapping[str, str]  # the names of the format's profiles, and which operators each of them allows
    default: Artifact  # used for a format that the user requests and the target does not name
    activations: Mapping[str, Choices]  # by profile
    emit: Emit
    refusal: Callable[[Scheme, str], Refusal | None]  # why a profile cannot store a weight by a scheme; None if it can
    search_storages: Callable[[str], tuple[Scheme, ...]]  # schemes of the recipe "mixed" by profile, smallest first
    # the output of each layer of the original in the file, in the order of execution; a runner that exposes them
    layers: Callable[[Path, Iterable[str]], "list[Layer]"]
    open_with_outputs: "Callable[[Path, GraphSpec, tuple[str, ...]], LayerOutputsRunner]"
    # fp16 emulation: a runner that notes the largest magnitude of each operator's output, and can round it to float16
    open_replay: "Callable[[Path, GraphSpec, Literal['float16', 'float32'], Note], Runner]"
    # capabilities: the engine versions that the file needs, and the compute units known to run it right or wrong
    needs: "Callable[[Path, Graph], Engine]"
    units: "Callable[[Path, Graph], dict[str, Unit]]"
    count_memory: "Callable[[Path], Memory]"
    systems: tuple[str, ...] | None = None  # systems of phones that can run the files, as in targets; None: any
    compute_units: tuple[str, ...] = ("cpu",)  # the units that artifacts can be made for
    float16_only: tuple[str, ...] = ()  # those of them that have no float32 arithmetic
    rewrites_refused: Mapping[str, str] = field(default_factory=dict)  # why, by the name of the rewrite
    layout: Layout = "channels_first"
    proved_on: str | None = (
        None  # the compute unit whose engine the gate itself runs; None: the gate uses another program
    )
    largest: int | None = None  # limit of the weights of one file in bytes; None: no limit
    xnnpack_rounding: bool = False  # int8 operators return int8, with a dynamic range per row: see export/quantization
    # Names of the outputs to keep in float32 so that no value range overflows float16; None: no such islands
    find_islands: "Callable[[Path, Sequence[Range]], list[str]] | None" = None
    tools: tuple[str, ...] = ()  # distributions that write and run the files; a bundle records their versions
    packages: tuple[Package, ...] = ()  # distributions that `devices list` looks for
    converter: Package | None = None  # must be installed in addition to the export extra
    # Writes the files that let another library open the folder of the format; returns {tokenizer: its folder}.
    write_companions: "Callable[[Path, Mapping[str, Graph], Checkpoint, tuple[int, int]], Mapping[str, str]]" = (
        no_companions
    )
    write_script: "Callable[[Path, UnsealedManifest], None]" = (
        no_script  # also for that library, once the manifest is known
    )
    reader_differences: "Callable[[UnsealedManifest], list[str] | None]" = (
        no_differences  # how that library's pictures differ
    )
