"""The memory of a stage, by hand."""

import json
from pathlib import Path

import pytest

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.bundle.stage_memory import peak_of, stage_peaks


def memory(weights: int | None, activations: int | None, loading: int | None = None) -> Memory:
    return Memory(weights_bytes=weights, activations_bytes=activations, loading_bytes=loading, counted="")


@pytest.mark.parametrize(
    ("needs", "whole", "low"),
    [
        ([memory(100, 10)], 110, 110),
        ([memory(100, 10, 150)], 150, 150),  # the engine holds more while it loads
        ([memory(100, 10, 105)], 110, 110),
        ([memory(100, 10), memory(50, 20)], 180, 110),
        ([memory(100, 10), memory(50, 20, 90)], 190, 110),  # the second is opened beside the first
        ([memory(50, 20, 90), memory(100, 10)], 180, 110),
        ([memory(50, 70), memory(100, 10)], 230, 120),
    ],
)
def test_the_peak_of_a_stage(needs: list[Memory], whole: int, low: int) -> None:
    assert peak_of(needs, low_memory=False) == whole
    assert peak_of(needs, low_memory=True) == low


@pytest.mark.parametrize("unknown", [None, memory(None, 1), memory(1, None)])
def test_what_is_not_known_is_not_guessed(unknown: Memory | None) -> None:
    assert peak_of([memory(1, 1), unknown], low_memory=True) is None
    assert peak_of([memory(1, 1), unknown], low_memory=False) is None


def test_the_stages_of_a_bundle(tiny_bundle: Path) -> None:
    """Each has one graph: both ways need the same."""
    manifest = open_bundle(tiny_bundle).manifest
    graphs = manifest.graphs["onnx"]
    whole, low = (stage_peaks(manifest.program, graphs, low_memory=each) for each in (False, True))
    assert whole == low and {*whole} >= {"encode_prompt", "denoise", "decode"}
    assert whole["denoise"] == peak_of([graphs["unet"].memory], low_memory=True)


def test_the_manifest_states_the_peaks_of_its_graphs(tiny_bundle: Path) -> None:
    """By hand from the records of the graphs in the pipeline file: each stage has one."""
    index, pipeline = (
        json.loads((tiny_bundle / name).read_text("utf-8")) for name in ("manifest.json", "pipeline/onnx.json")
    )
    peaks = index["formats"]["onnx"]["peaks"]
    graphs = {"encode_prompt": "text_encoder", "denoise": "unet", "decode": "vae_decoder"}
    assert graphs.keys() <= peaks.keys()
    for stage, graph in graphs.items():
        needs = pipeline["graphs"][graph]["memory"]
        largest = max(needs["loading_bytes"], needs["weights_bytes"] + needs["activations_bytes"])
        assert peaks[stage] == {"whole": largest, "one_at_a_time": largest}
