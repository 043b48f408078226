"""Every matrix as float32."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Survey
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme, Weight

FLOORS = None  # those of the gate


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, FLOAT32)
