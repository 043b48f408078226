"""A runner executes one artifact. The gate, the pipeline and the users all get the same one."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.graph_spec import GraphSpec

Array = NDArray[Any]


class Runner(Protocol):
    """Callable with every input that `spec` names; returns every output that `spec` names."""

    @property
    def spec(self) -> GraphSpec: ...

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


def check_inputs(spec: GraphSpec, inputs: Mapping[str, Array]) -> None:
    """Raises ValueError unless names, dtypes and the closed dimensions are those of `spec`."""
    if set(inputs) != {t.name for t in spec.inputs}:
        raise ValueError(f"{spec.name} takes {[t.name for t in spec.inputs]}, not {sorted(inputs)}")
    for tensor in spec.inputs:
        array = inputs[tensor.name]
        fits = len(array.shape) == len(tensor.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"{spec.name}.{tensor.name} is {tensor.dtype}{list(tensor.shape)}, not {array.dtype}{list(array.shape)}"
            )
