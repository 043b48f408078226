"""A scheme: how one weight is stored, and in which precision its operator computes. A plan: the schemes of one
component.

Names of weights are the names in the original module's state_dict, in every format. Only matrices have a scheme:
vectors (biases, gains of norms) are small and stay float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocketdiffusion.quantize.qparams import ValueRange

Activation = Literal["float", "int8", "int16", "dynamic"]


@dataclass(frozen=True)
class Scheme:
    """`kind` "float": 32 or 16 bits. "linear": integers of `bits` with a scale for each output channel (axis 0), or,
    with `group`, for each `group` input channels (axis 1) of an output channel. "palette": indices of `bits` into one
    lookup table for the tensor, or, with `group`, one table for each `group` output channels.

    `activation`: how the operator's input is quantized. "float": not at all. "int8", "int16": with a calibrated range.
    "dynamic": int8 with the range of the input at each call.
    """

    kind: Literal["float", "linear", "palette"]
    bits: int
    group: int = 0
    activation: Activation = "float"

    @property
    def storage(self) -> str:
        """Return the storage's name, such as "float16", "int8" or "palette6". Formats may store 5 bits in int8."""
        return f"{'int' if self.kind == 'linear' else self.kind}{self.bits}"


FLOAT32 = Scheme("float", 32)
FLOAT16 = Scheme("float", 16)


@dataclass(frozen=True)
class Weight:
    """A matrix as a recipe sees it: its shape and the kind of its operator."""

    shape: tuple[int, ...]
    operator: Literal["conv", "linear", "embedding"]


@dataclass(frozen=True)
class Plan:
    """The decision of a recipe for one component. `schemes`: the scheme of every matrix, by name. `inputs` and
    `outputs`: the calibrated value ranges of operators with activation "int8" or "int16", by the name of their weight.
    A lossy recipe has its own floors (dB): `floor_db` of the component's outputs, `picture_floors_db` of pictures
    (median, minimum)."""

    recipe: str
    schemes: Mapping[str, Scheme]
    inputs: Mapping[str, ValueRange] = field(default_factory=dict)
    outputs: Mapping[str, ValueRange] = field(default_factory=dict)
    floor_db: float | None = None
    picture_floors_db: tuple[float, float] | None = None

    def of(self, name: str, shape: tuple[int, ...]) -> Scheme:
        """Return the scheme of a tensor of this name and shape; float32 for a vector."""
        return self.schemes[name] if len(shape) > 1 else FLOAT32

    @property
    def lossy(self) -> bool:
        """Return True if a matrix is stored less precisely than float16."""
        return self.storage not in ("float32", "float16")

    @property
    def storage(self) -> str:
        """Return the storage of all matrices together: the only lossy one (islands of float are not counted),
        "mixed" if there are several, or the least precise float if there is none."""
        kinds = {scheme.storage for scheme in self.schemes.values()}
        lossy = sorted(kinds - {"float16", "float32"})
        if not lossy:
            return "float16" if "float16" in kinds else "float32"
        return lossy[0] if len(lossy) == 1 else "mixed"

    @property
    def activation(self) -> Activation:
        """Return the kind of activation other than "float", of which a recipe has one; "float" if there is none."""
        kinds = {scheme.activation for scheme in self.schemes.values()} - {"float"}
        return min(kinds) if kinds else "float"
