"""The form in which the artifacts of a format compute SiLU, QuickGELU and GELU, and the reason for it."""

from collections.abc import Mapping
from dataclasses import dataclass

FUSED_GELU = "one operator, which rounds once"
NO_TANH = "tanh is not exact in the negative tail, and takes two operators more"


@dataclass(frozen=True)
class Choice:
    """The form of one kind of activation in an artifact, the operators it consists of, and the reason for it."""

    form: str
    operators: str
    reason: str


Choices = Mapping[str, Choice]  # by kind: "silu", "quick_gelu", "gelu"
