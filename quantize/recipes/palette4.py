"""Every matrix as indices of 4 bits into tables of 16 values, found by k-means."""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    return dict.fromkeys(weights, Scheme("palette", 4, palette_group(analysis.profile)))
