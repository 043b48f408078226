"""The memory that drawing needs, by stage, predicted from the manifest's records of the graphs."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.program import Program, graphs_of, text_to_image
from pocketdiffusion.runtime.record import Count, Record


class Peak(Record):
    """The largest memory of the engines in one stage, predicted from the graphs' `memory`, in bytes; null: not known.
    The app and the engine's own code come on top."""

    whole: Annotated[Count | None, Field(description="with all graphs of the stage open at once")]
    one_at_a_time: Annotated[
        Count | None, Field(description="with one graph of the stage open at a time, each freed before the next opens")
    ]


def predict_peaks(program: Program, graphs: Mapping[str, Graph]) -> dict[str, Peak]:
    """Return the predicted peak of each stage of drawing from a prompt, as manifest.json states it."""
    whole, low = (stage_peaks(program, graphs, low_memory=each) for each in (False, True))
    return {stage: Peak(whole=whole[stage], one_at_a_time=low[stage]) for stage in whole}


def stage_peaks(program: Program, graphs: Mapping[str, Graph], *, low_memory: bool) -> dict[str, int | None]:
    """Return the largest memory in bytes that the engines hold in each stage of drawing from a prompt, by `peak_of`."""
    return {
        name: peak_of([graphs[graph].memory for graph in graphs_of(stage)], low_memory=low_memory)
        for name, stage in text_to_image(program).items()
    }


def peak_of(needs: Sequence[Memory | None], *, low_memory: bool) -> int | None:
    """Return the largest memory in bytes of the engines of one stage; None if a number is not known.

    With `low_memory` one engine is open at a time, and its peak is that of loading or of a call. Otherwise all are
    opened one after the other, and then called one after the other. Each keeps its weights, and the memory of its
    activations if its record says so.
    """
    weights, activations, kept, loading = [], [], [], []
    for each in needs:
        if each is None or each.weights_bytes is None or each.activations_bytes is None:
            return None
        weights.append(each.weights_bytes)
        activations.append(each.activations_bytes)
        kept.append(each.activations_bytes if each.keeps_activations else 0)
        loading.append(each.weights_bytes if each.loading_bytes is None else each.loading_bytes)
    if low_memory:
        return max(map(max, zip(loading, map(sum, zip(weights, activations, strict=True)), strict=True)))
    opening = max(sum(weights[:number]) + peak for number, peak in enumerate(loading))
    freed = max(needed - held for needed, held in zip(activations, kept, strict=True))
    return max(opening, sum(weights) + sum(kept) + freed)
