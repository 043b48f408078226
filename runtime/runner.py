"""A runner executes one artifact. The gate, the pipeline and the users all use the same one."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.graph_spec import GraphSpec

Array = NDArray[Any]


class Runner(Protocol):
    """A callable that accepts every input of `spec` by name and returns every output of `spec` by name."""

    @property
    def spec(self) -> GraphSpec: ...

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


def check_inputs(spec: GraphSpec, inputs: Mapping[str, Array]) -> None:
    """Raise ValueError if names, dtypes or fixed dimensions of `inputs` differ from `spec`."""
    if set(inputs) != {t.name for t in spec.inputs}:
        raise ValueError(f"{spec.name} has the inputs {[t.name for t in spec.inputs]}, not {sorted(inputs)}")
    for tensor in spec.inputs:
        array = inputs[tensor.name]
        fits = len(array.shape) == len(tensor.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"{spec.name}.{tensor.name} is {tensor.dtype}{list(tensor.shape)}, not {array.dtype}{list(array.shape)}"
            )
