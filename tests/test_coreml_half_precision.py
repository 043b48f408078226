"""Core ML programs in float16: which operators stay float32, and the memory that finding them needs."""

import tracemalloc
from pathlib import Path

import pytest
import torch
from support.traced_parts import component_of
from torch import Tensor, nn

from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.engines.mlprogram.program import read_program

HALF = Artifact("coreml", "ios17", "fp16", "gpu", ())
CHANNELS = 256


class Bounded(nn.Module):
    """A convolution, and a lower bound of one value for each channel, which no pass fuses."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.constant = constant

    def forward(self, x: Tensor) -> tuple[Tensor]:
        bounds = torch.tensor([[[self.constant]]] + [[[-1.0]]] * (CHANNELS - 1))
        return (torch.maximum(self.conv(x), bounds),)


def part_of(folder: Path, constant: float) -> Component:
    return component_of(
        folder, lambda: Bounded(constant), {"x": torch.randn(1, CHANNELS, 4, 4)}, {"y": (1, CHANNELS, 4, 4)}, {}
    )


def types_of(folder: Path, constant: float) -> dict[str, str]:
    """Return the type of the result of each operator of the file."""
    graph = emit(part_of(folder, constant), HALF, folder, open_batch=False)
    operations = read_program(folder / graph.path).operations
    return {operation.kind: operation.results[0].type.dtype for operation in operations}


@pytest.mark.parametrize(
    ("constant", "dtype"),
    [(65504.0, "FLOAT16"), (-65504.0, "FLOAT16"), (65505.0, "FLOAT32"), (-1e6, "FLOAT32"), (-torch.inf, "FLOAT16")],
)
def test_an_operator_with_a_constant_beyond_float16_stays_float32(tmp_path: Path, constant: float, dtype: str) -> None:
    """An infinite constant, as in a mask of attention, is infinite in float16 as well."""
    types = types_of(tmp_path, constant)
    assert types["maximum"] == dtype
    assert types["conv"] == "FLOAT16"


def test_looking_for_such_constants_needs_no_copies_of_the_weights(tmp_path: Path) -> None:
    """coremltools' own test has the indices of all elements, 11 times the weights."""
    part = part_of(tmp_path, 2.0)
    emit(part, HALF, tmp_path / "imports", open_batch=False)
    tracemalloc.start()
    try:
        emit(part, HALF, tmp_path, open_batch=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 4 * CHANNELS * CHANNELS * 9
