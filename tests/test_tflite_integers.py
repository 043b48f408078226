"""Lossy schemes in TFLite, on `tiny_checkpoint` and on small parts.

What the converter makes does not depend on the recipe (`tflite_tags`), so it converts each part once for all of them.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_tflite import REWRITES, parts
from torch import Tensor, nn
from traced_parts import component_of, psnr

from pocketdiffusion.export.backends import emit, tflite
from pocketdiffusion.export.backends.tflite_file import (
    TYPES,
    WEIGHT_OPERAND,
    data_of,
    is_constant,
    operator_name,
    read_model,
    write_model,
)
from pocketdiffusion.export.backends.tflite_tags import laid_out
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.layers.tflite import layers
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.quantized import open_quantized, rounded
from pocketdiffusion.export.replay import open_replay
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Activation, Plan, Scheme
from pocketdiffusion.quantize.spans import Span, affine
from pocketdiffusion.quantize.stored import Linear, nbytes, store
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.manifest import Graph
from pocketdiffusion.runtime.parity import FLOORS_DB
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.runners.tflite import open_runner
from pocketdiffusion.runtime.spec import GraphSpec, TensorSpec

W8 = Scheme("linear", 8)
EXACT_DB = FLOORS_DB["float32", "float32"]


def artifact(rewrites: tuple[str, ...] = REWRITES) -> Artifact:
    return Artifact("tflite", "std", "w8", "gpu", rewrites)


def plan_of(part: Component, choose: Callable[[str, str], Scheme]) -> Plan:
    """`choose` gives the scheme of a weight by its name and its operator; spans are those of the example."""
    schemes = {name: choose(name, weight.operator) for name, weight in weights_of(part).items()}
    spans = spans_of(part) if any(s.activation == "int8" for s in schemes.values()) else ({}, {})
    return Plan("w8", schemes, *spans)


def weights_only(bits: int) -> Callable[[str, str], Scheme]:
    return lambda name, operator: Scheme("linear", bits)


def with_input(activation: Activation, *operators: str) -> Callable[[str, str], Scheme]:
    """Islands are the ends of the UNet and its time embedding."""

    def choose(name: str, operator: str) -> Scheme:
        island = any(word in name for word in ("conv_in", "conv_out", "time_embedding"))
        return replace(W8, activation=activation) if operator in operators and not island else W8

    return choose


def spans_of(part: Component) -> tuple[dict[str, Span], dict[str, Span]]:
    """What each operator takes and gives on the example, in the original."""
    module = load_module(part)
    taken: dict[str, Span] = {}
    given: dict[str, Span] = {}

    def note(name: str, owner: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        for spans, x in ((taken, arguments[0]), (given, result)):
            spans[name] = Span(min(0.0, float(x.min())), max(0.0, float(x.max())))

    for name, weight in weights_of(part).items():
        if weight.operator != "embedding":
            module.get_submodule(name.rpartition(".")[0]).register_forward_hook(partial(note, name))
    with torch.no_grad():
        module(*part.example(0).values())
    return taken, given


SCHEMES: Mapping[str, Callable[[str, str], Scheme]] = {
    "w8": weights_only(8),
    "3 bits": weights_only(3),
    "dynamic8": with_input("dynamic", "linear"),
    "dynamic": with_input("dynamic", "linear", "conv"),
    "w8a8": with_input("int8", "linear", "conv"),
}


@dataclass(frozen=True)
class Emitted:
    part: Component
    plan: Plan
    graph: Graph
    path: Path

    @property
    def inputs(self) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in self.part.example(0).items()}

    def run(self) -> dict[str, Array]:
        """Opening the runner compares names, dtypes and shapes with the spec."""
        return open_runner(self.path, self.part.spec, threads=1)(self.inputs)

    def worst(self, reference: Mapping[str, Array]) -> float:
        found = self.run()
        return min(psnr(reference[name], found[name]) for name in found)

    def torch(self) -> dict[str, Array]:
        """The original with the same plan."""
        return open_quantized(self.part, (), self.plan)(self.inputs)


Emit = Callable[[str, str], Emitted]


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("converted")
    convert = tflite._convert

    def convert_once(part: Component, module: nn.Module, path: Path) -> None:
        kept = folder / part.spec.name
        if not kept.exists():
            convert(part, module, kept)
        shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite, "_convert", convert_once)
        yield


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
    assert graph.ops["DEQUANTIZE"] == matrices - graph.ops.get("EMBEDDING_LOOKUP", 0)  # the lookup takes integers
    assert "QUANTIZE" not in graph.ops


def weights_in(model: Any) -> dict[str, Any]:
    """The constants that are called as weights are, by name."""
    return {t.name.decode(): t for t in model.subgraphs[0].tensors if is_constant(model, t) and b"weight" in t.name}


@pytest.mark.parametrize("scheme", ["w8", "w8a8"])
@pytest.mark.parametrize("name", ["text_encoder", "unet"])
def test_codes_and_scales_are_those_that_are_stored(emitted: Emit, name: str, scheme: str) -> None:
    """Every matrix is there under its own name, the table of positions too, and none takes more than it should."""
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
        np.testing.assert_array_equal(data.view(np.int8), laid_out(stored.codes).reshape(-1))
        np.testing.assert_array_equal(tensor.quantization.scale, stored.scale.reshape(-1))
        size += data.size + 2 * len(tensor.quantization.scale)
    assert size == sum(nbytes(made.part.weights[key].shape, each) for key, each in made.plan.schemes.items())


# Torch rounds what an operator takes once for the whole tensor. LiteRT rounds each row of a matrix product by its own
# range, which is finer, and in int8 also what an operator gives, which torch does not: so the two differ about as much
# as each differs from the original. Measured on the example, in dB: the file beside torch, the file beside the
# original, torch beside the original.
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
    """By weight: the types of what its operator takes, of the weight there, and of what it gives."""
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


@pytest.mark.parametrize(("name", "scheme", "noted"), [("unet", "dynamic8", b"2.17.0"), ("unet", "w8", b"2.9.0")])
def test_the_oldest_runtime_that_takes_it(emitted: Emit, name: str, scheme: str, noted: bytes) -> None:
    """FULLY_CONNECTED of version 12 came after what the converter knew of."""
    model = read_model(emitted(name, scheme).path)
    (entry,) = model.metadata
    assert bytes(model.buffers[entry.buffer].data).rstrip(b"\0") == noted


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
    assert tables == ["text_model.embeddings.token_embedding"]  # that of positions is looked up while converting


# Small parts.


class Small(nn.Module):
    """A convolution with a stride, and two products that take one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(8, 16, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return (self.a(tokens) * torch.sigmoid(self.b(tokens)),)


class Twins(nn.Module):
    """Equal weights, zero weights, a zero channel, a factor that the converter folds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))
        with torch.no_grad():
            self.a.weight[3] = 0
            self.b.weight.copy_(self.a.weight)
            self.c.weight.zero_()
            self.d.weight.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x) * 0.3 + torch.sigmoid(self.b(x)) * torch.tanh(self.c(x)) + torch.sigmoid(self.d(x)),)


class Sum(nn.Module):
    """Two weights of which the converter makes one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (nn.functional.linear(x, self.a.weight + self.b.weight, self.a.bias + self.b.bias),)


class Shifted(nn.Module):
    """A vector that the converter takes for a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shift = nn.Linear(8, 8, bias=False), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x) + self.shift,)


class Faint(nn.Module):
    """Weights that are small beside their bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        with torch.no_grad():
            self.a.weight.mul_(1e-4)
            self.a.bias.add_(1e4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x),)


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.table(ids),)


class Wide(nn.Module):
    """Weights that are too large for the converter to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a = nn.Conv2d(128, 256, 3, padding=1), nn.Linear(256, 512)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(self.conv(x).flatten(2).transpose(1, 2)),)


SHAPES: Mapping[type[nn.Module], tuple[int, ...]] = {Small: (1, 4, 8, 8), Wide: (1, 128, 4, 4)}


def small(folder: Path, build: type[nn.Module]) -> Component:
    """By the name of its class."""
    x = torch.randn(SHAPES.get(build, (1, 5, 8)), generator=torch.Generator().manual_seed(0))
    inputs = {"ids": torch.arange(5, dtype=torch.int32)[None]} if build is Table else {"x": x}
    with torch.no_grad():
        shape = tuple(build()(*inputs.values())[0].shape)
    return component_of(folder, build, inputs, {"y": shape}, {}, build.__name__)


def emit_small(folder: Path, build: type[nn.Module], choose: Callable[[str, str], Scheme]) -> Emitted:
    part = small(folder, build)
    plan = plan_of(part, choose)
    graph = emit(part, artifact(()), folder, open_batch=False, plan=plan)
    return Emitted(part, plan, graph, folder / graph.path)


def test_an_operator_in_int8_is_within_a_step_of_torch(tmp_path: Path, converted_once: None) -> None:
    """Torch here rounds what each operator gives as well; at the middle between two steps either may be taken."""
    made = emit_small(tmp_path, Small, with_input("int8", "linear", "conv"))
    assert made.graph.ops["QUANTIZE"] == 2  # the products share one
    runner = open_quantized(made.part, (), made.plan)

    def round_result(name: str, owner: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> Tensor:
        return rounded(result, made.plan.outputs[name], 8)

    for name in made.plan.schemes:
        runner.module.get_submodule(name.removesuffix(".weight")).register_forward_hook(partial(round_result, name))
    wanted, found = runner(made.inputs)["y"], made.run()["y"]
    step, _ = affine(made.plan.outputs["a.weight"], 8)
    off = np.abs(wanted - found)
    assert off.max() < 2 * step and np.mean(off > 1e-5) < 0.1


@pytest.mark.parametrize("scheme", ["w8", "w8a8", "dynamic8"])
def test_weights_that_look_alike(tmp_path: Path, converted_once: None, scheme: str) -> None:
    """Each keeps its name, a zero channel its zeros, and what the converter multiplied is what it was."""
    made = emit_small(tmp_path, Twins, SCHEMES[scheme])
    assert made.worst(made.torch()) >= {"w8": EXACT_DB, "w8a8": 35, "dynamic8": 50}[scheme]
    model = read_model(made.path)
    found = weights_in(model)
    assert set(found) == set(made.plan.schemes)
    for name, tensor in found.items():
        data, stored = data_of(model, tensor), store(made.part.weights[name].read(), W8)
        assert data is not None and isinstance(stored, Linear)
        np.testing.assert_array_equal(data.view(np.int8), stored.codes.reshape(-1))
        assert (tensor.quantization.scale > 0).all()


@pytest.mark.parametrize(
    ("build", "choose", "said"),
    [
        (Sum, weights_only(8), "a.weight: litert-torch left this weight out, or made something else of it"),
        (Shifted, with_input("int8", "linear"), "a.weight: the operator of this weight adds something else than the"),
        (Faint, with_input("int8", "linear"), "a.weight: a bias is so large beside its weights that int32 does not"),
        (Table, with_input("int8", "embedding"), "table.weight: .* takes it, which has no form with int8 input"),
    ],
)
def test_what_cannot_be_had_is_named(
    tmp_path: Path, converted_once: None, build: type[nn.Module], choose: Callable[[str, str], Scheme], said: str
) -> None:
    with pytest.raises(ProofError, match=said):
        emit_small(tmp_path, build, choose)


def test_a_range_that_was_not_calibrated(tmp_path: Path, converted_once: None) -> None:
    part = small(tmp_path, Small)
    plan = plan_of(part, with_input("int8", "linear"))
    plan = replace(plan, outputs={name: span for name, span in plan.outputs.items() if name != "b.weight"})
    with pytest.raises(ProofError, match="b.weight: it takes int8, and no range was calibrated for it"):
        emit(part, artifact(()), tmp_path, open_batch=False, plan=plan)


def test_a_large_weight_and_the_size_of_the_file(tmp_path: Path, converted_once: None) -> None:
    made = emit_small(tmp_path, Wide, weights_only(8))
    assert made.worst(made.torch()) >= EXACT_DB
    size = sum(nbytes(ref.shape, made.plan.of(name, ref.shape)) for name, ref in made.part.weights.items())
    assert size < made.path.stat().st_size < 1.03 * size


def test_the_replay_of_integers(tmp_path: Path, converted_once: None) -> None:
    made = emit_small(tmp_path, Small, weights_only(8))
    seen: dict[str, float] = {}
    single = open_replay(tmp_path, "tflite", made.graph, "float32", lambda kind, name, x: seen.update({kind: x}))
    half = open_replay(tmp_path, "tflite", made.graph, "float16", lambda *_: None)
    exact = made.run()["y"]
    assert psnr(exact, single(made.inputs)["y"]) > 130 and {"CONV_2D", "FULLY_CONNECTED"} <= set(seen)
    assert 55 < psnr(exact, half(made.inputs)["y"]) < 90


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (Scheme("palette", 6, 16), "TFLite has no tables of values for weights; the nearest is w8"),
        (Scheme("linear", 4, 32), "scales of blocks in matrix products alone: .*; the nearest is w8"),
        (replace(W8, activation="int16"), "no fast kernel for activations of int16: .* 13 times .*; the nearest is w8"),
        (replace(FLOAT16, activation="int8"), "takes weights of integers; the nearest is w8a8"),
    ],
)
def test_what_is_refused(tmp_path: Path, scheme: Scheme, said: str) -> None:
    part = small(tmp_path, Small)
    plan = Plan("mine", dict.fromkeys(weights_of(part), scheme))
    with pytest.raises(UserError, match=f"tflite std does not take the recipe mine: .*{said}"):
        emit(part, artifact(), tmp_path, open_batch=False, plan=plan)
    assert not (tmp_path / "tflite").exists()
