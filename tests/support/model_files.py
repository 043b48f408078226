"""Weights of a model on disk, changed."""

from pathlib import Path

import numpy as np
import safetensors.numpy


def scale_weight(file: Path, name: str, factor: float) -> None:
    """Multiply the tensor `name` of a safetensors file by `factor`."""
    weights = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({**weights, name: np.float32(factor) * weights[name]}, file)
