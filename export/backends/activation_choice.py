"""Which form of SiLU, QuickGELU and GELU the artifacts of a format have, and why that one."""

from collections.abc import Mapping
from dataclasses import dataclass

FUSED_GELU = "one operator, which rounds once"
NO_TANH = "tanh is not exact in the negative tail, and takes two operators more"


@dataclass(frozen=True)
class Choice:
    """The form that an artifact has of one kind of activation, its operators there, and why that one."""

    form: str
    operators: str
    reason: str


Choices = Mapping[str, Choice]  # by kind: "silu", "quick_gelu", "gelu"
