"""The Core ML backend: a component becomes an ML program in a package, in the form that Apple's Swift pipeline expects.

The bytes depend only on the model, the options and the versions of the exporter. Unlike the ONNX backend this one keeps
all weights of the module in memory: coremltools converts the program that torch.jit has traced, with its weights.
"""

import contextlib
import hashlib
import io
import json
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.check_storable import check_storable
from pocketdiffusion.export.backends.coreml import lowering as coreml_lowering
from pocketdiffusion.export.backends.coreml import split_einsum as coreml_split_einsum
from pocketdiffusion.export.backends.coreml.apple import TURN, file_spec, package_of
from pocketdiffusion.export.backends.coreml.half_precision import use_half_precision
from pocketdiffusion.export.backends.coreml.quantization import add_pass, check_compressed, compresses
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.backends.emission import check_schemes
from pocketdiffusion.export.backends.nearest import interpolate
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.rewrites import apply_rewrites, bodies
from pocketdiffusion.export.trace import check_calls
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec

PROFILES: Mapping[str, Any] = {"ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}
_AUTHOR = "com.apple.CoreML"  # author of the items of a package; Core ML reads only items of this author
assert coreml_split_einsum  # imported since it registers operators


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan | None = None) -> Graph:
    """Write coreml/NAME.mlpackage below `folder`. Arithmetic is float16 if `plan` stores no matrix as float32.

    Inputs and outputs are always float32. `open_batch` is ignored: shapes are fixed, as the Neural Engine requires.
    Raise UserError for options that the backend does not have, and ProofError if sites are missing, a weight does not
    fit float16, or the compressed weights of the file are not as `plan` says.
    """
    if artifact.profile not in PROFILES:
        raise UserError(f"Core ML has no profile {artifact.profile!r}: choose from {', '.join(PROFILES)}")
    plan = plan or float_plan(part, artifact.recipe)
    check_schemes(plan, artifact)
    if len(storages := {scheme.storage for scheme in plan.schemes.values()}) > 1 and "float32" in storages:
        raise UserError(
            f"Core ML computes either in float32 or in float16, and the recipe {plan.recipe} mixes float32 "
            "with other storages: store all matrices as float32, or none"
        )
    precision: Literal["float32", "float16"] = "float32" if plan.storage == "float32" else "float16"
    module = load_module(part)
    for name, parameter in module.named_parameters():
        check_storable(name, parameter.numpy(), FLOAT32 if precision == "float32" else FLOAT16)
    rewrites = apply_rewrites(module, artifact.rewrites)
    own, package = file_spec(part.spec), package_of(part.spec)
    transposes = {name: TURN for name in package.transposed}
    with WithBodies(artifact.rewrites) as replaced:
        traced = _trace(part, module, own, transposes)
    calls = replaced.calls + Counter(node.kind() for node in traced.inlined_graph.nodes())
    calls.subtract(replaced.inside.calls)
    check_calls(part, artifact.rewrites, calls)
    passes, compressed = ct.PassPipeline(), compresses(plan)
    faults = add_pass(passes, part, plan) if compressed else []
    model = _convert(traced, own, artifact, precision, passes)
    if faults:
        raise faults[0]
    path = Path("coreml") / f"{package.name}.mlpackage"
    files = _write_package(model, own, folder / path)
    if compressed:
        check_compressed(folder / path, part, plan, artifact.profile)
    return Graph(
        path=path.as_posix(),
        files=tuple((path / file).as_posix() for file in files),
        spec=part.spec,
        file_spec=None if own == part.spec else own,
        transposes=transposes,
        profile=artifact.profile,
        recipe=artifact.recipe,
        storage=plan.storage,
        arithmetic="int8" if plan.activation == "int8" else precision,
        compute_unit=artifact.compute_unit,
        rewrites=rewrites,
        ops=dict(sorted(_operators(model.get_spec()).items())),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


class InFileShapes(nn.Module):
    """The component's module with the inputs of its package, which are reshaped to the module's own."""

    def __init__(self, module: nn.Module, spec: GraphSpec, own: GraphSpec, turned: Mapping[str, Any]) -> None:
        super().__init__()
        self.module, self.spec, self.own, self.transposed = module, spec, own, turned

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        canonical = []
        for tensor, x in zip(self.spec.inputs, inputs, strict=True):
            if tensor.name in self.transposed:
                axes = self.transposed[tensor.name]
                x = x.reshape([int(tensor.shape[axis]) for axis in axes]).permute(*np.argsort(axes).tolist())
            canonical.append(x.to(getattr(torch, tensor.dtype)))
        outputs: tuple[Tensor, ...] = self.module(*canonical)
        return outputs


def _trace(part: Component, module: nn.Module, own: GraphSpec, turned: Mapping[str, Any]) -> Any:
    """Return the torch.jit program of `module` with the fixed shapes of `own`, traced on the component's example."""
    inputs = []
    for (name, x), tensor in zip(part.example(0).items(), own.inputs, strict=True):
        x = x.permute(*turned[name]) if name in turned else x
        inputs.append(x.reshape([int(size) for size in tensor.shape]).to(getattr(torch, tensor.dtype)))
    with torch.no_grad(), _silence():
        shaped = InFileShapes(module, part.spec, own, turned).eval()
        return torch.jit.trace(shaped, tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]


class WithBodies(TorchFunctionMode):
    """Replaces calls of markers that have no lowering here by calls of their bodies, and counts them by marker, and
    in `inside` the operators that the bodies call.

    Nearest upsampling becomes `nearest.interpolate`, which is the same in every format."""

    def __init__(self, rewrites: Iterable[str]) -> None:
        super().__init__()
        self.table = {mark: body for mark, body in bodies(rewrites).items() if mark not in coreml_lowering.LOWERED}
        self.calls: Counter[str] = Counter()
        self.inside = FunctionCalls()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self.table:
            self.calls[function._schema.name] += 1
            with self.inside:
                return self.table[function](*args, **(kwargs or {}))
        elif function is functional.interpolate:
            function = interpolate
        return function(*args, **(kwargs or {}))


class FunctionCalls(TorchFunctionMode):
    """Counts the calls of torch's functions, by the name of the operator that each becomes in a traced program. A
    dispatch mode, as `CallCounts` is, would keep them out of a program that is being traced."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[f"aten::{function.__name__}"] += 1
        return function(*args, **(kwargs or {}))


def _convert(traced: Any, own: GraphSpec, artifact: Artifact, precision: str, passes: Any) -> Any:
    """Return coremltools' model of `traced`, without its messages.

    A pass of coremltools writes a scale and a shift per channel as a batch_norm of variance 1 without an epsilon, which
    is then 1e-5: an error of 5e-6 in each GroupNorm. In float16 rounding hides it; in float32 the pass is removed.
    """
    if precision == "float32":
        passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    else:
        use_half_precision(passes, artifact.islands)
    with _silence():
        return ct.convert(
            traced,
            convert_to="mlprogram",
            inputs=[ct.TensorType(t.name, t.shape, np.dtype(t.dtype)) for t in own.inputs],
            outputs=[ct.TensorType(t.name, dtype=np.dtype(t.dtype)) for t in own.outputs],
            minimum_deployment_target=PROFILES[artifact.profile],
            compute_precision=getattr(ct.precision, precision.upper()),
            pass_pipeline=passes,
            skip_model_load=True,
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the log messages, progress bars and warnings of coremltools, transformers and torch.

    transformers logs that all attributes of its models are read, which torch.jit does; torch warns of each value that
    becomes a constant."""
    loggers = {name: logging.getLogger(name) for name in ("coremltools", "transformers")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _write_package(model: Any, own: GraphSpec, package: Path) -> list[str]:
    """Write the package: program, weights, and the table of contents, whose ids are digests of the files. Return their
    paths below `package`."""
    spec = model.get_spec()
    spec.description.metadata.Clear()  # has versions of the converter, and the date
    spec.mlProgram.attributes.pop("buildInfo", None)
    for tensors, described in ((own.inputs, spec.description.input), (own.outputs, spec.description.output)):
        docs = {tensor.name: tensor.doc for tensor in tensors}
        for feature in described:
            feature.shortDescription = docs[feature.name]
    home = package / "Data" / _AUTHOR
    (home / "weights").mkdir(parents=True)
    program = spec.SerializeToString(deterministic=True)
    (home / "model.mlmodel").write_bytes(program)
    shutil.move(Path(model.weights_dir) / "weight.bin", home / "weights" / "weight.bin")  # out of a temporary folder
    with (home / "weights" / "weight.bin").open("rb") as file:
        weights_id = _identifier(hashlib.file_digest(file, "sha256"))
    program_id = _identifier(hashlib.sha256(program))
    items = {
        program_id: ("model.mlmodel", "CoreML Model Specification"),
        weights_id: ("weights", "CoreML Model Weights"),
    }
    contents = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            key: {"author": _AUTHOR, "description": text, "name": name, "path": f"{_AUTHOR}/{name}"}
            for key, (name, text) in items.items()
        },
        "rootModelIdentifier": program_id,
    }
    (package / "Manifest.json").write_text(json.dumps(contents, indent=4, sort_keys=True) + "\n", encoding="utf-8")
    return ["Manifest.json", f"Data/{_AUTHOR}/model.mlmodel", f"Data/{_AUTHOR}/weights/weight.bin"]


def _identifier(digest: Any) -> str:
    """Return the digest in the form of a UUID, as Core ML's own tools write it."""
    h = digest.hexdigest().upper()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:32]))


def _operators(spec: Any) -> Counter[str]:
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    return Counter(operation.type for operation in block.operations if operation.type != "const")
