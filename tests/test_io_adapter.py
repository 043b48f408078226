"""Files whose tensors have other names, shapes and dtypes than the pipeline's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, check_inputs

OWN = GraphSpec(
    "part",
    (TensorSpec("ids", (1, 3), "int32"), TensorSpec("states", (1, 3, 2), "float32")),
    (TensorSpec("picture", (1, 3, 2, 4), "float32"),),
)
FILE = GraphSpec(
    "part",
    (TensorSpec("input_ids", (1, 3), "float32"), TensorSpec("hidden", (1, 2, 1, 3), "float32")),
    (TensorSpec("image", (1, 2, 4, 3), "float32"),),
)
TRANSPOSES = {"states": (0, 2, 1), "picture": (0, 2, 3, 1)}


@dataclass(frozen=True)
class Known:
    """Gives one picture, channels last, and keeps what it was given."""

    spec: GraphSpec
    given: dict[str, Array]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        self.given.update(inputs)
        return {"image": np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)}


def test_names_shapes_and_dtypes() -> None:
    inner = Known(FILE, {})
    ids, states = np.array([[1, 2, 49407]], np.int32), np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    found = AdaptedRunner(OWN, inner, TRANSPOSES)({"ids": ids, "states": states})
    assert np.array_equal(inner.given["input_ids"], [[1, 2, 49407]])
    assert np.array_equal(inner.given["hidden"], states.transpose(0, 2, 1)[:, :, None])
    picture = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3).transpose(0, 3, 1, 2)
    assert np.array_equal(found["picture"], picture)


def test_inputs_are_checked_against_the_pipelines_names() -> None:
    runner = AdaptedRunner(OWN, Known(FILE, {}), TRANSPOSES)
    with pytest.raises(ValueError, match="part has the inputs"):
        runner({"input_ids": np.zeros((1, 3), np.float32), "hidden": np.zeros((1, 2, 1, 3), np.float32)})
