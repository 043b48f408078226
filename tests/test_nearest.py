"""Upsampling to a given size takes the elements that torch takes, in every format."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from support.traced_parts import component_of, psnr
from torch import Tensor, nn
from torch.nn import functional

from pocketdiffusion.export.backends.nearest import interpolate, nearest_indices, upsample_nearest
from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.engines import load_runner


@pytest.mark.parametrize("found", [1, 2, 3, 7, 9, 28, 33, 100])
def test_indices_are_those_of_torch(found: int) -> None:
    line = torch.arange(found, dtype=torch.float32)[None, None]
    for wanted in range(1, 3 * found + 2):
        expected = functional.interpolate(line, size=wanted, mode="nearest")[0, 0].numpy()
        np.testing.assert_array_equal(nearest_indices(found, wanted), expected)


def test_what_a_unet_asks_for_is_every_element_twice_but_the_last() -> None:
    """A size that halves upwards rounded: n becomes 2n - 1."""
    for found in range(1, 600):
        np.testing.assert_array_equal(nearest_indices(found, 2 * found - 1), np.arange(2 * found - 1) // 2)


@pytest.mark.parametrize("size", [(10, 14), (9, 13), (10, 13), (9, 14), (11, 15), (4, 20), (15, 21), (5, 7)])
def test_pictures_are_those_of_torch(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(x, size=size, mode="nearest")
    assert torch.equal(upsample_nearest(x, size), expected) and torch.equal(interpolate(x, size), expected)


def test_other_interpolations_are_left_to_torch() -> None:
    x = torch.randn(1, 2, 5, 7)
    for options in ({"scale_factor": 2.0}, {"size": (9, 13), "mode": "bilinear"}, {"size": 9}):
        assert torch.equal(interpolate(x, **options), functional.interpolate(x, **options))
    assert torch.equal(upsample_nearest(x, None, (2.0, 2.0)), functional.interpolate(x, scale_factor=2.0))


class DownAndUp(nn.Module):
    """As the outer blocks of a UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.conv = nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x + self.conv(functional.interpolate(self.down(x), size=x.shape[2:], mode="nearest")),)


@pytest.mark.parametrize(
    ("format", "profile"),
    [("onnx", "std"), ("onnx", "ort"), ("tflite", "std"), ("coreml", "ios16"), ("coreml", "ios18")],
)
def test_odd_sizes_are_right_in_every_format(format: str, profile: str, tmp_path: Path) -> None:
    x = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(0))
    part = component_of(tmp_path, DownAndUp, {"x": x}, {"out": (1, 4, 9, 13)}, {})
    artifact = Artifact(format, profile, "fp32", "gpu", ())
    backend = import_module(f"pocketdiffusion.export.backends.{format}.emit")
    graph = backend.emit(part, artifact, tmp_path, open_batch=False)
    assert graph.compute_unit == "gpu"
    found = load_runner(tmp_path, format, graph)({"x": x.numpy()})["out"]
    with torch.no_grad():
        (expected,) = load_module(part)(x)
    assert psnr(expected.numpy(), found) > 120
