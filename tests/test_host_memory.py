"""The memory of an export on this computer: predicted and refused before it starts, and bounded while it draws."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import call

from pocketdiffusion import host_memory
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.host_memory import check_host_memory, formats_one_at_a_time, predict_bytes
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """As much of a component as its memory needs: a name, and one weight for every parameter."""

    spec: GraphSpec
    weights: dict[str, Shape] = field(default_factory=dict)
    split: Any = None


PARTS: Any = (
    Part(GraphSpec("text_encoder", (), ()), {"w": Shape((123, 1000, 1000))}),
    Part(GraphSpec("unet", (), ()), {"w": Shape((860, 1000, 1000))}, split=lambda part, count: []),
)
ARTIFACTS = load_target("pixel-8").artifacts


def test_a_model_that_does_not_fit() -> None:
    check_host_memory(PARTS, ARTIFACTS, 10_000_000_000)
    with pytest.raises(UserError) as error:
        check_host_memory(PARTS, ARTIFACTS, 4_000_000_000)
    needs = predict_bytes(PARTS[1], "onnx")
    assert needs is not None and f"to onnx needs about {needs / 1e9:.1f} GB of memory for unet" in str(error.value)
    assert "--max-memory allows 4.0 GB: give --split-unet 4, or use a computer with more" in str(error.value)


@pytest.mark.parametrize("format", ["onnx", "tflite", "coreml"])
def test_a_decoder_needs_memory_for_its_pixels(format: str) -> None:
    """No split of the UNet helps, and none is advised."""
    picture = TensorSpec("sample", (1, 3, 512, 512), "float32")
    decoder = Part(GraphSpec("vae_decoder", (), (picture,)), {"w": Shape((50, 1000, 1000))})
    parts: Any = (*PARTS, decoder)
    artifacts = [replace(ARTIFACTS[0], format=format)]
    with pytest.raises(UserError, match="of memory for vae_decoder, and .*: use a computer with more memory"):
        check_host_memory(parts, artifacts, 2_500_000_000)
    with pytest.raises(UserError, match="of memory for unet, and .*: give --split-unet"):
        check_host_memory(parts, artifacts, 5_000_000_000)


@pytest.mark.parametrize("parts", [[replace(PARTS[1], split=None)], PARTS])
def test_nothing_fits(parts: Any) -> None:
    limit = 4_000_000_000 if len(parts) == 1 else 1_000_000_000
    with pytest.raises(UserError, match="GB: use a computer with more memory"):
        check_host_memory(parts, ARTIFACTS, limit)


def test_a_format_whose_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "read_costs", lambda format: None)
    check_host_memory(PARTS, ARTIFACTS, 1)


@pytest.mark.parametrize("size", ["6", "GB", "0GB", "-1GB", "6 TB", "1e3GB", ""])
def test_no_size(size: str, tmp_path: Path) -> None:
    done = call("export", "emoji", "--target", "pixel-8", "--max-memory", size, "-o", tmp_path / "out")
    assert done.returncode == 2 and "is not a size of memory" in done.stderr and len(done.stderr.splitlines()) == 1


def test_refused_before_it_starts(micro_checkpoint: Path, tmp_path: Path) -> None:
    options = "--target", "pixel-8", "--max-memory", "900MB", "--recordings", tmp_path / "kept"
    done = call("export", micro_checkpoint, *options, "-o", tmp_path / "out")
    assert done.returncode == 2 and "--max-memory allows 0.9 GB: use a computer with more memory" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_same_pictures_with_one_graph_at_a_time(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    manifest = bundle.manifest
    assert formats_one_at_a_time(manifest.program, manifest.graphs, 10**12) == []
    assert formats_one_at_a_time(manifest.program, manifest.graphs, 10**9) == ["onnx"]
    recordings = read_golden(bundle)[:1]
    usual, low = (judge(bundle, recordings, tight=tight) for tight in ((), ("onnx",)))
    assert usual[0] == low[0]
    for one, other in zip(usual[1], low[1], strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)
