"""Lossy schemes in TFLite on `tiny_checkpoint`: weights, integers for activations, layers by name."""

from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tensorflow_lite import install, is_for_it, open_there  # noqa: F401  # a fixture
from support.tflite_plans import (
    EXACT_DB,
    SCHEMES,
    Emit,
    Emitted,
    artifact,
    convert_once,  # noqa: F401  # a fixture
    plan_of,
    weights_in,
)
from support.traced_parts import psnr
from test_tflite import parts
from torch import Tensor, nn

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.tflite.file import (
    TYPES,
    WEIGHT_OPERAND,
    data_of,
    operator_name,
    read_model,
    write_model,
)
from pocketdiffusion.export.backends.tflite.intermediate_outputs import layers
from pocketdiffusion.export.backends.tflite.tags import laid_out
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.quantize.quantized_tensor import Linear, nbytes, store
from pocketdiffusion.quantize.scheme import FLOAT32, Plan
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process


@pytest.fixture(scope="module")
def emitted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, converted_once: None) -> Emit:
    """By the component's name and the key of SCHEMES, each once."""

    @cache
    def make(name: str, scheme: str) -> Emitted:
        part, folder = parts(tiny_checkpoint)[name], tmp_path_factory.mktemp("emitted")
        plan = plan_of(part, SCHEMES[scheme])
        graph = emit(part, artifact(), folder, open_batch=False, plan=plan)
        return Emitted(part, plan, graph, folder / graph.path)

    return make


@pytest.mark.parametrize("scheme", ["w8", "3 bits"])
@pytest.mark.parametrize("name", ["text_encoder", "unet"])
def test_weights_alone_are_the_very_numbers_that_torch_has(emitted: Emit, name: str, scheme: str) -> None:
    made = emitted(name, scheme)
    assert made.worst(made.torch()) >= EXACT_DB
    graph = made.graph
    assert (graph.arithmetic, graph.compute_unit, graph.recipe) == ("float32", "cpu", "w8")
    assert graph.storage == {"w8": "int8", "3 bits": "int3"}[scheme]
    matrices = len(made.plan.schemes)
    lookups = graph.ops.get("EMBEDDING_LOOKUP", 0)
    assert lookups == (2 if name == "text_encoder" else 0)  # of the integers, and of their scales
    assert graph.ops["DEQUANTIZE"] == matrices - lookups // 2
    assert "QUANTIZE" not in graph.ops


@pytest.mark.parametrize("scheme", ["w8", "w8a8"])
@pytest.mark.parametrize("name", ["text_encoder", "unet"])
def test_quantized_values_and_scales_are_as_stored(emitted: Emit, name: str, scheme: str) -> None:
    """Every matrix is there under its own name, the table of positions too, and none has more bytes than planned."""
    made = emitted(name, scheme)
    model = read_model(made.path)
    found, size = weights_in(model), 0
    assert set(found) == set(made.plan.schemes)
    for key, each in made.plan.schemes.items():
        ref = made.part.weights[key]
        stored = store(ref.read(), each)
        assert isinstance(stored, Linear)
        tensor, data = found[key], data_of(model, found[key])
        assert data is not None and TYPES[tensor.type] == "INT8"
        np.testing.assert_array_equal(data.view(np.int8), laid_out(stored.quantized).reshape(-1))
        scales = scales_of(model, tensor)
        np.testing.assert_array_equal(scales, stored.scale.reshape(-1))
        size += data.size + 2 * len(scales)
    assert size == sum(nbytes(made.part.weights[key].shape, each) for key, each in made.plan.schemes.items())


def scales_of(model: Any, tensor: Any) -> Array:
    """Return the scales of a weight's channels; a table that is looked up has the scale 1, and its scales in a
    column."""
    columns = [each for each in model.subgraphs[0].tensors if list(each.shape) == [tensor.shape[0], 1]]
    if list(tensor.quantization.scale) != [1] or not columns:
        return np.asarray(tensor.quantization.scale)
    (column,) = columns
    return np.asarray(data_of(model, column)).view(np.float32)


# Torch rounds an operator's input by one range for the tensor. LiteRT rounds each row of a matrix product by its own
# range, which is finer, and in int8 also rounds an operator's output, which torch does not: so the two differ about as
# much as each differs from the original. Measured on the example, in dB: the file against torch, the file against the
# original, torch against the original.
#   dynamic8  text_encoder 45.8 45.6 42.9   unet 56.8 49.3 49.1
#   dynamic   (text_encoder as dynamic8)    unet 41.8 44.0 41.9
#   w8a8      text_encoder 43.2 39.9 40.9   unet 38.9 40.0 42.3
FLOORS = {
    ("dynamic8", "text_encoder"): 43,
    ("dynamic8", "unet"): 54,
    ("dynamic", "unet"): 38,
    ("w8a8", "text_encoder"): 39,
    ("w8a8", "unet"): 35,
}


@pytest.mark.parametrize(("scheme", "name"), FLOORS)
def test_integers_for_activations(emitted: Emit, name: str, scheme: str) -> None:
    made = emitted(name, scheme)
    original = open_quantized(made.part, (), Plan("fp32", dict.fromkeys(made.plan.schemes, FLOAT32)))(made.inputs)
    by_torch = made.torch()
    lost = min(psnr(original[key], by_torch[key]) for key in original)
    assert made.worst(by_torch) >= FLOORS[scheme, name]
    assert made.worst(original) >= lost - 4
    graph = made.graph
    assert (graph.storage, graph.arithmetic, graph.compute_unit) == ("int8", "int8", "cpu")


def kinds_of_operators(made: Emitted) -> dict[str, tuple[str, str, str]]:
    """Return, by weight, the types of its operator's input, of the weight there, and of the output."""
    model = read_model(made.path)
    tensors = model.subgraphs[0].tensors
    names = {index: tensor.name.decode() for index, tensor in enumerate(tensors)}
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) == "DEQUANTIZE":
            names[int(operator.outputs[0])] = names[int(operator.inputs[0])]
    found = {}
    for operator in model.subgraphs[0].operators:
        place = WEIGHT_OPERAND.get(operator_name(model, operator))
        if place is not None and names[int(operator.inputs[place])] in made.plan.schemes:
            indices = (operator.inputs[0], operator.inputs[place], operator.outputs[0])
            found[names[int(operator.inputs[place])]] = tuple(TYPES[tensors[index].type] for index in indices)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("scheme", ["dynamic8", "dynamic", "w8a8"])
def test_each_operator_computes_as_its_scheme_says(emitted: Emit, scheme: str) -> None:
    """Islands take float32 for the activation and for the weight; so do the graph's ends, the timestep among them."""
    made = emitted("unet", scheme)
    wanted = {
        "float": ("FLOAT32", "FLOAT32", "FLOAT32"),
        "dynamic": ("FLOAT32", "INT8", "FLOAT32"),
        "int8": ("INT8", "INT8", "INT8"),
    }
    assert kinds_of_operators(made) == {key: wanted[each.activation] for key, each in made.plan.schemes.items()}
    graph = read_model(made.path).subgraphs[0]
    ends = [*graph.inputs, *graph.outputs]
    assert len(ends) == 4 and {TYPES[graph.tensors[index].type] for index in ends} == {"FLOAT32"}


def test_two_emits_are_the_same_bytes(emitted: Emit, tmp_path: Path) -> None:
    made = emitted("unet", "w8a8")
    again = emit(made.part, artifact(), tmp_path, open_batch=False, plan=made.plan)
    assert again == made.graph and (tmp_path / again.path).read_bytes() == made.path.read_bytes()


@pytest.mark.parametrize(
    ("name", "scheme", "noted"),
    [("unet", "dynamic8", b"2.17.0"), ("unet", "w8", b"2.9.0"), ("text_encoder", "w8", b"2.8.0")],
)
def test_the_oldest_runtime_that_takes_it(emitted: Emit, name: str, scheme: str, noted: bytes) -> None:
    """FULLY_CONNECTED of version 12 came after what the converter knew of; a table of int8 is looked up without the
    version of EMBEDDING_LOOKUP that did so too. The manifest says it as well."""
    made = emitted(name, scheme)
    model = read_model(made.path)
    (entry,) = model.metadata
    assert bytes(model.buffers[entry.buffer].data).rstrip(b"\0") == noted
    engine = made.graph.engine
    assert engine is not None and (engine.name, engine.least_version) == ("litert", noted.decode())
    assert engine.signature == name and engine.tried == version("ai-edge-litert") and not engine.opset


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
@pytest.mark.parametrize("scheme", ["w8", "w8a8"])
def test_the_android_apps_engine_is_as_near(emitted: Emit, tensorflow: Path, name: str, scheme: str) -> None:
    """Its outputs are LiteRT's; with integer activations, they are as near to the original as LiteRT's."""
    made = emitted(name, scheme)
    assert is_for_it(made.path)
    theirs, ours = open_there(tensorflow, made.path, made.part.spec)(made.inputs), made.run()
    if scheme == "w8":
        assert min(psnr(ours[key], theirs[key]) for key in ours) >= EXACT_DB
    original = open_quantized(made.part, (), Plan("fp32", dict.fromkeys(made.plan.schemes, FLOAT32)))(made.inputs)
    for key, reference in original.items():
        assert psnr(reference, theirs[key]) >= psnr(reference, ours[key]) - 1, key


@pytest.mark.parametrize("name", ["text_encoder", "unet"])
def test_what_the_android_apps_engine_does_not_open_names_a_newer_one(
    emitted: Emit, tensorflow: Path, name: str
) -> None:
    made = emitted(name, "dynamic8")
    with pytest.raises(ProofError, match="FULLY_CONNECTED"):
        open_there(tensorflow, made.path, made.part.spec)
    assert not is_for_it(made.path)


# Layers by name.


def results_of(made: Emitted, results: list[str], folder: Path) -> dict[str, Array]:
    """The tensors of that name, from a copy of the file that has them among its outputs."""
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(made.path)
    (graph,) = model.subgraphs
    index = {tensor.name.decode(): number for number, tensor in enumerate(graph.tensors)}
    further = [TensorSpec(n, tuple(int(s) for s in graph.tensors[index[n]].shape), "float32") for n in results]
    graph.outputs = [*graph.outputs, *(index[name] for name in results)]
    for name in results:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index[name]
        model.signatureDefs[0].outputs.append(entry)
    write_model(model, folder / "all.tflite")
    spec = made.part.spec
    return open_runner(folder / "all.tflite", GraphSpec(spec.name, spec.inputs, (*spec.outputs, *further)))(made.inputs)


def in_one_order(module: str) -> str:
    """Queries, keys and values are computed in any order."""
    return module.replace(".to_q", ".to_qkv").replace(".to_k", ".to_qkv").replace(".to_v", ".to_qkv")


@pytest.mark.parametrize("scheme", ["w8", "w8a8"])
def test_layers_of_the_unet(emitted: Emit, scheme: str, tmp_path: Path) -> None:
    """All of its matrices, in the order in which the original calls them; and the results are the modules' own."""
    made = emitted("unet", scheme)
    found = layers(made.path, made.plan.schemes)
    runner = open_quantized(made.part, (), made.plan)
    called: dict[str, Array] = {}

    def note(module: str, owner: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        called[module] = (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()

    for name in made.plan.schemes:
        module = name.removesuffix(".weight")
        runner.module.get_submodule(module).register_forward_hook(partial(note, module))
    runner(made.inputs)
    assert {layer.module for layer in found} == set(called) and len(found) == len(called)
    assert [in_one_order(layer.module) for layer in found] == [in_one_order(module) for module in called]
    results = results_of(made, [layer.result for layer in found], tmp_path)
    worst = min(psnr(called[layer.module].reshape(-1), results[layer.result].reshape(-1)) for layer in found)
    assert worst >= {"w8": EXACT_DB, "w8a8": 30}[scheme]


def test_weights_that_the_file_lacks_are_no_layers(emitted: Emit) -> None:
    made = emitted("text_encoder", "w8")
    (only,) = layers(made.path, ["text_model.encoder.layers.1.mlp.fc1.weight", "another.weight"])
    assert only.module == "text_model.encoder.layers.1.mlp.fc1"
    tables = [layer.module for layer in layers(made.path, made.plan.schemes) if "embedding" in layer.module]
    assert tables == ["text_model.embeddings.token_embedding"]  # positions are looked up during conversion
