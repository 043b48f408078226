"""Replays: every result of an artifact is seen, and rounded where that is asked for."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.traced_parts import component_of, psnr
from torch import Tensor, nn

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.backends.fp16_emulation import open_replay
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.quantize.float16_range import Found, update_largest
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.runner import Array

FORMATS = ("onnx", "coreml", "tflite")


class Small(nn.Module):
    """A convolution, a norm, and a product that is largest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.nn.functional.silu(self.norm(self.conv(x))) * 300.0,)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Component:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sites = {"group_norm": 1, "silu": 1}
    return component_of(tmp_path_factory.mktemp("small"), Small, {"x": x}, {"y": (1, 8, 8, 8)}, sites)


def emitted(part: Component, format: str, recipe: str, folder: Path) -> tuple[Graph, dict[str, Array]]:
    graph = emit_floats(part, replace(find_backend(format).default, recipe=recipe), folder, open_batch=False)
    return graph, {name: x.numpy() for name, x in part.example(0).items()}


@pytest.mark.parametrize("format", FORMATS)
def test_in_float32_the_replay_is_the_artifact(part: Component, format: str, tmp_path: Path) -> None:
    graph, inputs = emitted(part, format, "fp16", tmp_path)
    found: Found = {}
    replayed = open_replay(tmp_path, format, graph, "float32", partial(update_largest, found))(inputs)["y"]
    exact = load_module(part)(*map(torch.from_numpy, inputs.values()))[0].detach().numpy()
    assert psnr(exact, replayed) > 60  # matrices alone were rounded
    if graph.arithmetic == "float32":
        assert psnr(load_runner(tmp_path, format, graph)(inputs)["y"], replayed) > 130
    assert len(found) >= 4 and max(found.values()) == pytest.approx(np.abs(replayed).max(), rel=1e-3)
    assert not list(tmp_path.rglob("*replay*"))


@pytest.mark.parametrize("format", FORMATS)
def test_in_float16_every_result_is_rounded(part: Component, format: str, tmp_path: Path) -> None:
    graph, inputs = emitted(part, format, "fp16", tmp_path)
    single = open_replay(tmp_path, format, graph, "float32", lambda *_: None)(inputs)["y"]
    half = open_replay(tmp_path, format, graph, "float16", lambda *_: None)(inputs)["y"]
    assert 55 < psnr(single, half) < 85
    np.testing.assert_array_equal(half, half.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("format", FORMATS)
def test_an_overflow_is_seen_in_the_operator_that_makes_it(part: Component, format: str, tmp_path: Path) -> None:
    graph, inputs = emitted(part, format, "fp16", tmp_path)
    loud = {"x": inputs["x"] * np.float32(1e5)}
    single: Found = {}
    half: Found = {}
    open_replay(tmp_path, format, graph, "float32", partial(update_largest, single))(loud)
    open_replay(tmp_path, format, graph, "float16", partial(update_largest, half))(loud)
    convolutions = [key for key in half if key[0].upper().startswith("CONV")]
    assert convolutions and all(65504 < single[key] < np.inf and not np.isfinite(half[key]) for key in convolutions)


def test_a_disk_without_hard_links(part: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = emitted(part, "onnx", "fp16", tmp_path)

    def refuse(*paths: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    replayed = open_replay(tmp_path, "onnx", graph, "float32", lambda *_: None)(inputs)["y"]
    assert psnr(load_runner(tmp_path, "onnx", graph)(inputs)["y"], replayed) > 130


KEEPS_NOTHING = """
import sys
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto, helper
from pocketdiffusion.export.backends.onnx.fp16_emulation import open_replay
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.memory import own_peak_bytes

folder, size, count = Path(sys.argv[1]), 1_000_000, 60
nodes = [helper.make_node("Sqrt", [f"x{n}"], [f"x{n + 1}"], name=f"node{n}") for n in range(count)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x0", f"x{count}")]
inner = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, [1, size]) for n in range(1, count)]
graph = helper.make_graph(nodes, "main", ends[:1], ends[1:], value_info=inner)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx")
(folder / "model.onnx_data").touch()
x, y = (TensorSpec(name, (1, size), "float32") for name in ("x0", f"x{count}"))
noted = []
runner = open_replay(folder / "model.onnx", GraphSpec("graph", (x,), (y,)), "float16", lambda *seen: noted.append(seen))
before = own_peak_bytes()
runner({"x0": np.full((1, size), 2.0, np.float32)})
print(len(noted), own_peak_bytes() - before)
"""


def test_a_replay_of_onnx_keeps_no_results(tmp_path: Path) -> None:
    """60 results of 4 MB: they would be 240 MB, and as much again rounded, and few are read at the same time."""
    folder = tmp_path / "onnx" / "graph"
    folder.mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", KEEPS_NOTHING, folder], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 60 and grown < 120e6
