"""A check: what is compared with what, and how close it must be. It is decided before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.runner import Runner


@dataclass(frozen=True)
class Scope:
    """The subject of a check and where it runs. `format` is None for anything but an artifact, `recipe` is an
    artifact's, `device` is "host" or the stand-in that runs it, and `unit` the compute unit that runs it or, on a
    stand-in, that the stand-in replaces."""

    format: str | None = None
    storage: str = "float32"
    arithmetic: str = "float32"
    device: str = "host"
    recipe: str = ""
    unit: str = "cpu"


@dataclass(frozen=True)
class Tolerance:
    """The least PSNR in dB: `outputs` has the floors of single outputs by their subjects, `floor_db` is the floor of
    all others. The limit of the largest single error follows from the floor (`verdicts.largest_error_limit`)."""

    floor_db: float
    outputs: Mapping[str, float] = field(default_factory=dict)

    def of(self, subject: str) -> float:
        """Return the floor of one output, by its name "graph.output"."""
        return self.outputs.get(subject, self.floor_db)


NONE = Tolerance(-inf)  # for measurements without a floor


@dataclass(frozen=True)
class Check:
    """`kind` states what is compared, and `reference` is run on the recorded inputs to compare with; None means the
    recorded outputs of the original."""

    kind: Kind
    tolerance: Tolerance
    scope: Scope = Scope()
    reference: Runner | None = None

    @property
    def rung(self) -> str:
        """Return the `rung` of its verdicts: the recipe for an artifact, else the value of the kind."""
        return self.scope.recipe if self.kind == Kind.ARTIFACT else self.kind.value


def scope_of(format: str, graph: Graph) -> Scope:
    """Return the scope of an artifact: its format, storage, arithmetic and recipe, on this machine."""
    return Scope(format, graph.storage, graph.arithmetic, recipe=graph.recipe)
