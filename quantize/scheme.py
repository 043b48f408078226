"""How one weight is stored, and what the operator that takes it computes in; and what a recipe decides for a component.

Names of weights are those of the original module's state_dict, in every format. Only matrices have a scheme: vectors
(biases, gains of norms) are small, enter sums, and stay float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocketdiffusion.quantize.qparams import Span

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
        """In a word: "float16", "int8", "palette6". A format may give codes more room: 5 bits lie in int8."""
        return f"{'int' if self.kind == 'linear' else self.kind}{self.bits}"


FLOAT32 = Scheme("float", 32)
FLOAT16 = Scheme("float", 16)


@dataclass(frozen=True)
class Weight:
    """What a recipe knows of a matrix: its shape, and which operator takes it."""

    shape: tuple[int, ...]
    operator: Literal["conv", "linear", "embedding"]


@dataclass(frozen=True)
class Plan:
    """What a recipe decides for one component. `schemes` has every matrix. `inputs` and `outputs` are the calibrated
    spans of what the operators with activation "int8" or "int16" take and give, by the name of their weight. A lossy
    recipe has floors (dB) of its own: of the component's outputs, and of pictures (median, minimum)."""

    recipe: str
    schemes: Mapping[str, Scheme]
    inputs: Mapping[str, Span] = field(default_factory=dict)
    outputs: Mapping[str, Span] = field(default_factory=dict)
    floor_db: float | None = None
    picture_floors_db: tuple[float, float] | None = None

    def of(self, name: str, shape: tuple[int, ...]) -> Scheme:
        """The scheme of a tensor of that name and shape; a vector's is float32."""
        return self.schemes[name] if len(shape) > 1 else FLOAT32

    @property
    def lossy(self) -> bool:
        """Whether matrices are less than float16."""
        return self.storage not in ("float32", "float16")

    @property
    def storage(self) -> str:
        """Of all the matrices together: the one storage that all, or all but islands of float, have; else "mixed". Of
        float16 and float32 alone it is float16, the less exact."""
        kinds = {scheme.storage for scheme in self.schemes.values()}
        lossy = sorted(kinds - {"float16", "float32"})
        if not lossy:
            return "float16" if "float16" in kinds else "float32"
        return lossy[0] if len(lossy) == 1 else "mixed"

    @property
    def activation(self) -> Activation:
        """What most lossy operators' inputs are turned into: a recipe has one kind."""
        kinds = {scheme.activation for scheme in self.schemes.values()} - {"float"}
        return min(kinds) if kinds else "float"
