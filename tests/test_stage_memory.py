"""The memory of a stage, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.command import call
from support.sample_bundle import write_sample

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.stage_memory import peak_of, stage_peaks


def memory(weights: int | None, activations: int | None, loading: int | None = None, keeps: bool = True) -> Memory:
    return Memory(
        weights_bytes=weights,
        activations_bytes=activations,
        loading_bytes=loading,
        keeps_activations=keeps,
        counted="",
    )


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
        ([memory(50, 70, keeps=False), memory(100, 10, keeps=False)], 220, 120),  # freed before the next is called
        ([memory(50, 70, keeps=False), memory(100, 10)], 230, 120),
        ([memory(50, 70), memory(100, 10, keeps=False)], 230, 120),
    ],
)
def test_the_peak_of_a_stage(needs: list[Memory], whole: int, low: int) -> None:
    assert peak_of(needs, low_memory=False) == whole
    assert peak_of(needs, low_memory=True) == low


@pytest.mark.parametrize("unknown", [None, memory(None, 1), memory(1, None)])
def test_what_is_not_known_is_not_guessed(unknown: Memory | None) -> None:
    assert peak_of([memory(1, 1), unknown], low_memory=True) is None
    assert peak_of([memory(1, 1), unknown], low_memory=False) is None


def sealed(folder: Path, **needs: Memory | None) -> dict[str, Any]:
    """manifest.json of a small bundle whose graphs need as much as `needs` says by their names."""
    draft = write_sample(folder)
    graphs = draft.graphs["onnx"]
    changed = {name: graph.model_copy(update={"memory": needs.get(name)}) for name, graph in graphs.items()}
    seal(folder, draft.model_copy(update={"graphs": {"onnx": changed}}))
    index: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return index


def test_the_manifest_states_the_peaks_of_its_graphs(tmp_path: Path) -> None:
    needs = {"text_encoder": memory(100, 10), "unet": memory(50, 20, 90)}  # of the decoder nothing is known
    assert sealed(tmp_path, **needs)["formats"]["onnx"]["peaks"] == {
        "encode_prompt": {"whole": 110, "one_at_a_time": 110},
        "denoise": {"whole": 90, "one_at_a_time": 90},
        "decode": {"whole": None, "one_at_a_time": None},
    }
    manifest = open_bundle(tmp_path).manifest
    assert stage_peaks(manifest.program, manifest.graphs["onnx"], low_memory=True)["denoise"] == 90


def test_inspect_prints_them(tmp_path: Path) -> None:
    sealed(tmp_path, unet=memory(5_000_000, 2_000_000, 9_000_000))
    shown = call("inspect", str(tmp_path), fresh=True).stdout
    (line,) = [line for line in shown.splitlines() if line.split()[:2] == ["onnx", "denoise"]]
    assert line.split()[2:] == ["9.0", "9.0"]
    peaks = json.loads(call("inspect", str(tmp_path), "--json", fresh=True).stdout)["peaks"]
    assert peaks["onnx"]["denoise"] == {"whole": 9_000_000, "one_at_a_time": 9_000_000}
