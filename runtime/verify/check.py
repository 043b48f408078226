"""A check: what is compared with what, and how near it must be. It is decided before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.runner import Runner


@dataclass(frozen=True)
class Scope:
    """What is judged, and where: `format` is None where it is no artifact, `recipe` is an artifact's, `device` is
    "host", or the stand-in that runs it."""

    format: str | None = None
    storage: str = "float32"
    arithmetic: str = "float32"
    device: str = "host"
    recipe: str = ""


@dataclass(frozen=True)
class Tolerance:
    """The least PSNR in dB: of most outputs `floor_db`, of those in `outputs`, by their subjects, one of their own. The
    largest single error that it allows follows from it (`verdicts.largest_error_limit`)."""

    floor_db: float
    outputs: Mapping[str, float] = field(default_factory=dict)

    def of(self, subject: str) -> float:
        """Return the floor of one output, by its name "graph.output"."""
        return self.outputs.get(subject, self.floor_db)


NONE = Tolerance(-inf)  # of a measurement that nothing depends on


@dataclass(frozen=True)
class Check:
    """`kind` says what is compared, `reference` what with, on the recorded inputs: None is the recorded original."""

    kind: Kind
    tolerance: Tolerance
    scope: Scope = Scope()
    reference: Runner | None = None

    @property
    def rung(self) -> str:
        """The word of it in a verdict: that of its kind, or the recipe of an artifact."""
        return self.scope.recipe if self.kind == Kind.ARTIFACT else self.kind.value


def scope_of(format: str, graph: Graph) -> Scope:
    """Return what a verdict on an artifact says of it."""
    return Scope(format, graph.storage, graph.arithmetic, recipe=graph.recipe)
