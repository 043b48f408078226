"""The ONNX backend: a component becomes `model.onnx` and, next to it, `model.onnx_data` with the weights.

The file opens in onnxruntime, and under optimum's names in its `ORTDiffusionPipeline`. Its bytes depend only on the
model, the options and the versions of the exporter; nodes are named after their torch modules.
"""

import logging
import warnings
from ast import literal_eval
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast, get_args

import onnx_ir as ir
import torch
from onnxscript.optimizer import optimize_ir
from torch.export import ExportedProgram

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.emission import check_schemes
from pocketdiffusion.export.backends.onnx.edit import SCOPES
from pocketdiffusion.export.backends.onnx.execution_order import put_widened_weights_first
from pocketdiffusion.export.backends.onnx.lint import lint, lint_static
from pocketdiffusion.export.backends.onnx.lowering import OPSET, Profile, lowerings
from pocketdiffusion.export.backends.onnx.quantization.lower_weights import INTEGER_OPSET, lower_weights, needs_opset
from pocketdiffusion.export.backends.onnx.weights import (
    DATA,
    attach_weights,
    detach_weights,
    drop_unused,
    fold_transposes,
    stream_weights,
)
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.rewrites import bodies
from pocketdiffusion.export.trace import trace
from pocketdiffusion.quantize.scheme import Activation, Plan
from pocketdiffusion.runtime.bundle.manifest import ExternalData, Graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

MODEL = "model.onnx"
BATCH = "batch"
_ARITHMETIC: Mapping[Activation, Literal["float32", "int8", "int16"]] = {
    "float": "float32",
    "int8": "int8",
    "dynamic": "int8",
    "int16": "int16",
}


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan | None = None) -> Graph:
    """Write onnx/NAME/model.onnx and its data below `folder`, in optimum's layout.

    Inputs and outputs are float32 for any storage of the weights, and so is arithmetic unless `plan` says otherwise. A
    graph with a lossy recipe is for the CPU, except with 16-bit activations, which are for QNN. `open_batch` is for a
    graph that guidance runs on two samples at once; with 16-bit activations all sizes are fixed. Memory: the largest
    tensor, not the model. Raise ProofError if sites are missing, a weight does not fit its storage, or the profile or
    onnxruntime has no such operator.
    """
    profile = _profile(artifact)
    plan = plan or float_plan(part, artifact.recipe)
    check_schemes(plan, artifact)
    open_batch = open_batch and part.halved and plan.activation != "int16"
    draft = _draft(part, tuple(artifact.rewrites), profile, open_batch)
    model = draft.model.clone()
    weights = attach_weights(model, part.weights)
    weights = fold_transposes(model, weights, {name for name, s in plan.schemes.items() if s.kind == "linear"})
    if needs_opset(plan):
        model.opset_imports[""] = INTEGER_OPSET
    parts = lower_weights(model, weights, plan, profile)
    drop_unused(model)
    _name_nodes(model)
    _name_batch(model)
    _strip(model)
    home = Path("onnx") / part.spec.name
    (folder / home).mkdir(parents=True)
    parameters = stream_weights(model, parts, folder / home)
    put_widened_weights_first(model.graph)
    ops = lint(model, profile)
    if plan.activation == "int16":
        lint_static(model, plan)
    ir.save(model, folder / home / MODEL)
    return Graph(
        path=(home / MODEL).as_posix(),
        files=((home / MODEL).as_posix(), (home / DATA).as_posix()),
        external_data=(ExternalData(location=DATA, path=(home / DATA).as_posix()),),
        spec=_spec(part.spec, model),
        profile=profile,
        recipe=artifact.recipe,
        storage=plan.storage,
        arithmetic=_ARITHMETIC[plan.activation],
        compute_unit="cpu" if plan.lossy and plan.activation != "int16" else artifact.compute_unit,
        rewrites=dict(draft.rewrites),
        ops=ops,
        parameters=parameters,
    )


@dataclass(frozen=True)
class _Draft:
    """A graph whose weights are still its inputs. `rewrites` has the number of sites changed by each rewrite."""

    model: ir.Model
    rewrites: Mapping[str, int]


@lru_cache(1)
def _draft(part: Component, rewrites: tuple[str, ...], profile: Profile, open_batch: bool) -> _Draft:
    """Trace and translate a component. The result is kept for further recipes of the same component: clone the graph
    before changing it."""
    traced = trace(part, rewrites, open_batch=open_batch)
    model = _translate(part, _with_bodies(traced.program, rewrites, profile), profile)
    detach_weights(model, part.weights)
    optimize_ir(model)
    return _Draft(model, traced.rewrites)


def _profile(artifact: Artifact) -> Profile:
    if artifact.profile not in get_args(Profile):
        raise UserError(f"ONNX has no profile {artifact.profile!r}: choose from {', '.join(get_args(Profile))}")
    return cast(Profile, artifact.profile)


def _with_bodies(program: ExportedProgram, rewrites: Sequence[str], profile: Profile) -> ExportedProgram:
    """Return the program with each marker that the profile does not lower replaced by its body."""
    table = {mark: body for mark, body in bodies(rewrites).items() if mark not in lowerings(profile)}
    return program.run_decompositions(table) if table else program


def _translate(part: Component, program: ExportedProgram, profile: Profile) -> ir.Model:
    """Return the graph by PyTorch's exporter with our lowerings, without its messages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in part.spec.inputs],
                output_names=[tensor.name for tensor in part.spec.outputs],
                custom_translation_table=lowerings(profile),
            )
    finally:
        logger.setLevel(level)
    assert exported is not None
    return exported.model


def _name_nodes(model: ir.Model) -> None:
    """Name each node by its module and operator, such as `unet.mid_block.resnets.0.conv1/Conv`."""
    taken: Counter[str] = Counter()
    scope = ""
    for node in model.graph:
        if SCOPES in node.metadata_props:
            scope = literal_eval(node.metadata_props[SCOPES])[-2]
            scope = "" if scope.startswith("_") else scope  # torch's names of nodes outside of all modules
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _name_batch(model: ir.Model) -> None:
    """Name the exporter's symbol of the open dimension "batch"; sizes computed from it become unnamed."""
    first = model.graph.inputs[0].shape
    symbol = first[0] if first is not None else None
    for value in _values(model):
        if value.shape is not None and not isinstance(symbol, int):
            value.shape = ir.Shape(
                [BATCH if size == symbol else size if isinstance(size, int) else None for size in value.shape]
            )


def _strip(model: ir.Model) -> None:
    """Remove the exporter's metadata: stack traces, source paths, names of classes, versions."""
    model.producer_name, model.producer_version, model.domain, model.graph.name = "pocketdiffusion", None, None, "main"
    for noted in (model, model.graph, *model.graph, *_values(model)):
        noted.metadata_props.clear()
        noted.doc_string = None


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def _spec(wanted: GraphSpec, model: ir.Model) -> GraphSpec:
    """Return the component's spec with the names, shapes and dtypes of the artifact's inputs and outputs."""
    docs = {tensor.name: tensor.doc for tensor in (*wanted.inputs, *wanted.outputs)}

    def tensors(values: Iterable[ir.Value]) -> Iterator[TensorSpec]:
        for value in values:
            assert value.name is not None and value.shape is not None and value.dtype is not None
            shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
            yield TensorSpec(value.name, shape, value.dtype.numpy().name, docs[value.name])

    return GraphSpec(wanted.name, tuple(tensors(model.graph.inputs)), tuple(tensors(model.graph.outputs)))
