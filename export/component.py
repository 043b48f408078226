"""One part of a model: its graph's contract, how to build it, and where its weights lie on disk."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec

FLOATS = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)


@dataclass(frozen=True)
class TensorRef:
    """One tensor inside a safetensors file: little-endian, C order, `nbytes` bytes from `offset`.

    What is read is 2^`exponent` times what is stored.
    """

    file: Path
    offset: int
    nbytes: int
    dtype: str  # torch's name
    shape: tuple[int, ...]
    exponent: int = 0

    def read(self) -> NDArray[np.float32]:
        """The tensor as float32, read with plain file reads, so that no mapped page counts as memory."""
        stored = widen(np.fromfile(self.file, np.uint8, self.nbytes, offset=self.offset), self.dtype)
        return (np.ldexp(stored, self.exponent) if self.exponent else stored).reshape(self.shape)


def widen(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """The numbers that bytes hold, as float32: exactly, but for the longer float64 and int64. `dtype` is torch's name
    of a type whose numbers take whole bytes."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype.startswith("float8"):
        return _float8_values(dtype)[raw]
    with np.errstate(over="ignore"):
        return raw.view(dtype).astype(np.float32)


@cache
def _float8_values(dtype: str) -> NDArray[np.float32]:
    """What each of the 256 bytes stands for."""
    values: NDArray[np.float32] = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).float().numpy()
    return values


@dataclass(frozen=True, eq=False)
class Component:
    """`build()` makes the untouched original module without weights, on whatever device or fake mode is current.

    The module takes the tensors of `spec.inputs` in order and returns those of `spec.outputs` as a tuple. `weights`
    maps every name of its state_dict to its place on disk. `example(seed)` gives inputs of the real shapes, float32,
    as the sampler would feed them. `sites` counts, from the configuration alone, what tracing must find, by
    operator: "attention", "group_norm", "layer_norm", "silu", "gelu" (that of GEGLU too), "quick_gelu".
    `exponents` is of a component that was rescaled (export/float16/weight_rescaling.py): by module, the e of a result
    that is 2^-e times the untouched module's. `stage` is that of the program that calls the graph; `halved` says that
    it does so for each half of guidance, in one call where the graph's batch is open.
    """

    spec: GraphSpec
    build: Callable[[], nn.Module]
    weights: Mapping[str, TensorRef]
    example: Callable[[int], dict[str, Tensor]]
    sites: Mapping[str, int]
    exponents: Mapping[str, int] = field(default_factory=dict)
    stage: str = ""
    halved: bool = False


def check_runs(component: Component) -> None:
    """Run the module once on shapes alone. Raises UserError where its configuration makes one that cannot be run, or
    that gives other shapes than its graph promises."""
    name, wanted = component.spec.name, [list(tensor.shape) for tensor in component.spec.outputs]
    try:
        with torch.device("meta"), torch.no_grad():
            outputs = component.build().eval()(*(value.to("meta") for value in component.example(0).values()))
    except Exception as error:  # a wrong configuration fails in whatever way the line that meets it fails
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: its config.json makes a model that does not run ({reason})") from None
    found = [list(output.shape) for output in outputs]
    if found != wanted:
        raise UserError(f"{name}: its config.json makes a model that gives {found} and not {wanted}")


def load_module(component: Component) -> nn.Module:
    """The original module with its weights, float32, in evaluation mode.

    Built without storage and given its tensors one by one: what the checkpoint lacks stays without storage and cannot
    be run, rather than holding whatever lay in memory.
    """
    with torch.device("meta"):
        module = component.build()
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in read_weights(component)}, assign=True)
    return module.eval().requires_grad_(False)


def read_weights(component: Component) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """One tensor at a time, so that a caller that keeps none needs the memory of one."""
    for name, ref in component.weights.items():
        yield name, ref.read()
