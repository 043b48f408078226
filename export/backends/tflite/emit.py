"""The TFLite backend: a component becomes `tflite/NAME.tflite`, weights inside, one signature of the component's names.

The module, its markers replaced by what they compute and its weights by tags (`tflite_tags`), goes through
litert-torch, which so makes the same file for every recipe. The weights then come into it as the recipe stores them
(`tflite_weights`, `tflite_integers`), and it is finished (`tflite_finish`). Its bytes depend on the model, the options
and the versions of the converter alone.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call

from pocketdiffusion.export.backends import Refusal, check_lowered
from pocketdiffusion.export.backends.storage import check_storable
from pocketdiffusion.export.backends.tflite.draft import Draft
from pocketdiffusion.export.backends.tflite.file import LARGEST, check_size, read_model
from pocketdiffusion.export.backends.tflite.finish import engine_version, finish
from pocketdiffusion.export.backends.tflite.lint import ON_CPU, lint
from pocketdiffusion.export.backends.tflite.tags import make_tag, take_tags
from pocketdiffusion.export.backends.tflite.weights import place_weights
from pocketdiffusion.export.component import Component, read_weights
from pocketdiffusion.export.planned import float_plan
from pocketdiffusion.export.rewrites import apply_rewrites, bodies
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.export.trace import check_program
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import ProofError, UserError

PROFILE = "std"
__all__ = ["LARGEST", "PROFILE", "emit"]
# litert-torch reads these from the environment when it converts. The threshold, in bytes, is that over which a weight
# is kept out of the converter's reach; lower, and biases are no longer fused.
_SETTINGS = {"RESOURCE_CONSTANT_NUMEL_THRESHOLD": "100000", "LITERT_TORCH_SHOW_PROGRESS": "n"}


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """As the registry asks for it. Measured with LiteRT 2.3.0, times with the built-in UNet on one thread of an x86."""
    if scheme.kind == "palette":
        return Refusal("TFLite has no tables of values for weights", "w8")
    if scheme.kind == "float" and scheme.activation != "float":
        return Refusal("an operator that takes integers takes weights of integers", "w8a8")
    if scheme.group:
        reason = (
            "LiteRT knows scales of blocks in matrix products alone: a convolution or a DEQUANTIZE of such weights "
            "comes out as wrong as zeros would be"
        )
        return Refusal(reason, "w8")
    if scheme.activation == "int16":
        reason = "LiteRT has no fast kernel for activations of int16: a UNet takes 13 times as long as in float32"
        return Refusal(reason, "w8")
    return None


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan | None = None) -> Graph:
    """Writes tflite/NAME.tflite below `folder`. Shapes are static, of one sample, so `open_batch` changes nothing.

    Inputs and outputs are float32, token ids int32, and so is arithmetic but in the operators that `plan` wants in
    integers. A weight of fewer than 8 bits takes a whole byte. A graph with a lossy recipe is for the CPU: LiteRT's GPU
    delegate refuses weights of int8. Raises UserError for options that the backend does not have and where litert-torch
    is not installed, ProofError where the weights are too many for one file, sites or weights are missing, a weight
    does not fit its storage, or the file holds what phones do not take.
    """
    _check_profile(artifact)
    plan = plan or float_plan(part, artifact.recipe)
    check_lowered(plan, artifact)
    check_size(part.spec.name, sum(nbytes(ref.shape, plan.of(name, ref.shape)) for name, ref in part.weights.items()))
    module = TaggedModule(part, artifact.rewrites, plan)
    program = _export(part, module)
    check_program(part, artifact.rewrites, program)
    lowered = NamedModule(part, _without_markers(part, artifact, program))
    path = f"tflite/{part.spec.name}.tflite"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder / "tflite") as scratch:
        raw = Path(scratch) / "raw.tflite"
        _convert(part, lowered, raw)
        model = read_model(raw)
        draft = Draft(model, *model.subgraphs)
        place_weights(draft, part, plan, take_tags(draft, module.tags))
        finish(model, folder / path, module.tags)
    ops = lint(folder / path)
    return Graph(
        path=path,
        files=(path,),
        spec=part.spec,
        profile=PROFILE,
        recipe=artifact.recipe,
        storage=plan.storage,
        arithmetic="float32" if plan.activation == "float" else "int8",
        compute_unit="cpu" if plan.lossy or ops.keys() & ON_CPU else artifact.compute_unit,
        rewrites=module.rewrites,
        ops=ops,
        parameters=module.parameter_count,
        engine_needs={"tflite": engine_version(folder / path)},
    )


def _check_profile(artifact: Artifact) -> None:
    if artifact.profile != PROFILE:
        raise UserError(f"the profile {artifact.profile!r} is unknown to the TFLite backend, which has {PROFILE}")


class TaggedModule(nn.Module):
    """The rewritten module of a component, with a tag in the place of each matrix; vectors are there.

    Raises ProofError for a weight that is not finite, or that its storage cannot hold.
    """

    def __init__(self, part: Component, rewrites: tuple[str, ...], plan: Plan) -> None:
        super().__init__()
        with torch.device("meta"):
            module = part.build().eval().requires_grad_(False)
        self.rewrites = apply_rewrites(module, rewrites)
        self.parameter_count = 0
        self._hollow = (module,)  # in a tuple, so that its weights without storage are not taken for ours
        self._places: dict[str, str] = {}
        self.tags: dict[str, NDArray[np.int8]] = {}
        for number, (name, weight) in enumerate(read_weights(part)):
            check_storable(name, weight, plan.of(name, weight.shape))
            self.parameter_count += weight.size
            self._places[name] = f"weight{number}"
            if weight.ndim > 1:
                self.tags[name] = make_tag(number, weight.shape)
            self.register_buffer(f"weight{number}", torch.from_numpy(self.tags.get(name, weight)))
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As the component's module: inputs and outputs in the order of its spec."""
        weights = {name: _turned(getattr(self, place)) for name, place in self._places.items()}
        outputs = functional_call(self._hollow[0], weights, inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def _turned(weight: Tensor) -> Tensor:
    """In torch's order: this turn meets the converter's own, and the two cancel."""
    return weight.float().permute(0, 3, 1, 2) if weight.ndim == 4 else weight.float()


class NamedModule(nn.Module):
    """Takes the inputs of a component's spec by name and returns a table of its outputs: the file's signature."""

    def __init__(self, part: Component, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._inputs = [tensor.name for tensor in part.spec.inputs]
        self._outputs = [tensor.name for tensor in part.spec.outputs]
        self.training = False  # without the wrapped one, which torch.export does not let be set

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._outputs, self.module(*(inputs[name] for name in self._inputs)), strict=True))


def _export(part: Component, module: nn.Module) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, tuple(part.example(0).values()), strict=False)


def _without_markers(part: Component, artifact: Artifact, program: ExportedProgram) -> nn.Module:
    """The program with each marker replaced by its body. Raises ProofError for a marker that has none."""
    table = bodies(artifact.rewrites)
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    for node in module.graph.nodes:
        if node.target in table:
            node.target = table[node.target]
        elif getattr(node.target, "namespace", None) == "pocketdiffusion":
            raise ProofError(f"{part.spec.name}: TFLite has no form of the operator {node.target}")
    module.recompile()
    return module


def _convert(part: Component, module: nn.Module, path: Path) -> None:
    """litert-torch, its advice kept off the user's screen. Large weights stay as they are, untouched."""
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
    """The converter and what it imports write to the process's own streams, from C++ too."""
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
