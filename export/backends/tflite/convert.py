"""The conversion of a component by litert-torch, the same for every recipe: tags stand in for the weights.

The module is converted with its markers replaced by their bodies, and its weights by tags (see `tags`).
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call

from pocketdiffusion.export.backends.nearest import upsample_nearest
from pocketdiffusion.export.backends.tflite.tags import make_tag
from pocketdiffusion.export.component import Component, read_weights
from pocketdiffusion.export.rewrites import apply_rewrites, bodies
from pocketdiffusion.export.trace import check_program
from pocketdiffusion.runtime.errors import ProofError, UserError

# litert-torch reads these from the environment when it converts. A weight of more bytes than the threshold is kept out
# of the converter's reach; with a lower threshold biases are no longer fused.
_SETTINGS = {"RESOURCE_CONSTANT_NUMEL_THRESHOLD": "100000", "LITERT_TORCH_SHOW_PROGRESS": "n"}
LARGEST_KEPT = 2**28  # bytes of a converted file that is kept for the next recipe


@dataclass(frozen=True)
class Converted:
    """A converted component: the converter's file, the tag of each matrix in it, and the sites that each rewrite
    changed."""

    raw: bytes
    tags: Mapping[str, NDArray[np.int8]]
    rewrites: Mapping[str, int]
    parameter_count: int


def convert(part: Component, rewrites: tuple[str, ...]) -> Converted:
    """Convert a component, or return the last conversion if it is of the same component and rewrites.

    Raise ProofError if sites are missing or a marker has no body, UserError if litert-torch is not installed.
    """
    converted = _convert_once(part, rewrites)
    if len(converted.raw) > LARGEST_KEPT:
        _convert_once.cache_clear()
    return converted


@lru_cache(maxsize=1)
def _convert_once(part: Component, rewrites: tuple[str, ...]) -> Converted:
    module = TaggedModule(part, rewrites)
    program = _export(part, module)
    check_program(part, rewrites, program)
    lowered = NamedModule(part, _without_markers(part, rewrites, program))
    with TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.tflite"
        _convert(part, lowered, raw)
        return Converted(raw.read_bytes(), module.tags, module.rewrites, module.parameter_count)


class TaggedModule(nn.Module):
    """The rewritten module of a component, with a tag in place of each matrix; vectors have their values."""

    def __init__(self, part: Component, rewrites: tuple[str, ...]) -> None:
        super().__init__()
        with torch.device("meta"):
            module = part.build().eval().requires_grad_(False)
        self.rewrites = apply_rewrites(module, rewrites)
        self.parameter_count = 0
        self._hollow = (module,)  # in a tuple, so that its weights on the meta device are not registered here
        self._places: dict[str, str] = {}
        self.tags: dict[str, NDArray[np.int8]] = {}
        for number, (name, weight) in enumerate(read_weights(part)):
            self.parameter_count += weight.size
            self._places[name] = f"weight{number}"
            if weight.ndim > 1:
                self.tags[name] = make_tag(number, weight.shape)
            self.register_buffer(f"weight{number}", torch.from_numpy(self.tags.get(name, weight)))
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the component's module; inputs and outputs are in the order of its spec."""
        weights = {name: _turned(getattr(self, place)) for name, place in self._places.items()}
        outputs = functional_call(self._hollow[0], weights, inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def _turned(weight: Tensor) -> Tensor:
    """Return the weight in torch's axis order, as float32. The converter adds the inverse transpose, and the two
    cancel."""
    return weight.float().permute(0, 3, 1, 2) if weight.ndim == 4 else weight.float()


class NamedModule(nn.Module):
    """Maps inputs by name to outputs by name, with the names of a component's spec: the file's signature."""

    def __init__(self, part: Component, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._inputs = [tensor.name for tensor in part.spec.inputs]
        self._outputs = [tensor.name for tensor in part.spec.outputs]
        self.training = False  # not by eval(), since torch.export forbids it for the inner module

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._outputs, self.module(*(inputs[name] for name in self._inputs)), strict=True))


def _export(part: Component, module: nn.Module) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, tuple(part.example(0).values()), strict=False)


def _without_markers(part: Component, rewrites: tuple[str, ...], program: ExportedProgram) -> nn.Module:
    """Return the program with each marker replaced by its body, and nearest upsampling by `nearest.upsample_nearest`,
    which is the same in every format. Raise ProofError for a marker without a body."""
    table = bodies(rewrites) | {torch.ops.aten.upsample_nearest2d.vec: upsample_nearest}
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    for node in module.graph.nodes:
        if node.target in table:
            node.target = table[node.target]
        elif getattr(node.target, "namespace", None) == "pocketdiffusion":
            raise ProofError(f"{part.spec.name}: the TFLite backend has no lowering of the operator {node.target}")
    module.recompile()
    return module


def _convert(part: Component, module: nn.Module, path: Path) -> None:
    """Convert `module` to the file `path` by litert-torch, without its messages. Large weights are not changed."""
    with _settings(), _quiet():
        try:
            import litert_torch
        except ImportError:
            raise UserError("litert-torch is not installed: pip install --no-deps -r requirements-tflite.txt") from None
        signature = litert_torch.signature(part.spec.name, module, sample_kwargs=part.example(0))
        signature.convert(lightweight_conversion=True, runtime_constant_folding=False).export(str(path))


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress all output of the converter and its imports, which also write to the process's streams from C++."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stream, _ in kept:
                os.dup2(nowhere.fileno(), stream)
            yield
    finally:
        logging.disable(disabled)
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)
