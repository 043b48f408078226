"""How one weight is stored, and what its operator computes in; and what a recipe decides for a component.

Names of weights are those of the original module's state_dict, in every format. Only matrices have a scheme: vectors
(biases, gains of norms) are small, enter sums, and stay float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocketdiffusion.quantize.qparams import ValueRange

Activation = Literal["float", "int8", "int16", "dynamic"]


@dataclass(frozen=True)
class Scheme:
    """`kind` "float": of 32 or 16 bits. "linear": integers of `bits` with a scale for each output channel (axis 0), or,
    with `group`, for each `group` input channels (axis 1) of one. "palette": indices of `bits` into a table of values
    for the whole tensor, or, with `group`, for each `group` output channels.

    `activation` says what the operator's own input is turned into: nothing ("float"), integers of a range that was
    calibrated ("int8", "int16"), or int8 of the range that it has at that moment ("dynamic").
    """

    kind: Literal["float", "linear", "palette"]
    bits: int
    group: int = 0
    activation: Activation = "float"

    @property
    def storage(self) -> str:
        """Return, in a word, "float16", "int8", "palette6". A format may use more bits: 5 lie in int8."""
        return f"{'int' if self.kind == 'linear' else self.kind}{self.bits}"


FLOAT32 = Scheme("float", 32)
FLOAT16 = Scheme("float", 16)


@dataclass(frozen=True)
class Weight:
    """What a recipe knows of a matrix: its shape, and the kind of its operator."""

    shape: tuple[int, ...]
    operator: Literal["conv", "linear", "embedding"]


@dataclass(frozen=True)
class Plan:
    """The decision of a recipe for one component. `schemes` has every matrix. `inputs` and `outputs` are the calibrated
    ranges of operators with activation "int8" or "int16", by the name of their weight. A lossy recipe has floors (dB)
    of its own: of the component's outputs, and of pictures (median, minimum)."""

    recipe: str
    schemes: Mapping[str, Scheme]
    inputs: Mapping[str, ValueRange] = field(default_factory=dict)
    outputs: Mapping[str, ValueRange] = field(default_factory=dict)
    floor_db: float | None = None
    picture_floors_db: tuple[float, float] | None = None

    def of(self, name: str, shape: tuple[int, ...]) -> Scheme:
        """Return the scheme of a tensor of that name and shape; a vector's is float32."""
        return self.schemes[name] if len(shape) > 1 else FLOAT32

    @property
    def lossy(self) -> bool:
        """Return whether matrices are less exact than float16."""
        return self.storage not in ("float32", "float16")

    @property
    def storage(self) -> str:
        """Return the storage of all matrices together: the one of all, or of all but islands of float; else "mixed".
        Of float16 and float32 alone it is float16, the less exact."""
        kinds = {scheme.storage for scheme in self.schemes.values()}
        lossy = sorted(kinds - {"float16", "float32"})
        if not lossy:
            return "float16" if "float16" in kinds else "float32"
        return lossy[0] if len(lossy) == 1 else "mixed"

    @property
    def activation(self) -> Activation:
        """Return what inputs of operators become, other than float: a recipe has one kind."""
        kinds = {scheme.activation for scheme in self.schemes.values()} - {"float"}
        return min(kinds) if kinds else "float"
