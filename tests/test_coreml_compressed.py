"""Compressed Core ML packages: the numbers of quantized_tensor, by coremltools' own reading and by our executor."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.compressed_packages import INT8, PLAIN, SPLIT, artifact, feeds, uniform
from support.traced_parts import component_of, psnr
from test_coreml import parts
from torch import Tensor, nn

from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.backends.coreml.intermediate_outputs import constants
from pocketdiffusion.export.backends.coreml.quantization import check_compressed
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.backends.emission import find_refusal
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.quantize.quantized_tensor import nbytes, restore, store
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.engines.coreml import ProgramRunner, open_runner
from pocketdiffusion.runtime.engines.mlprogram.constants import HEADER, Blob, read_blob
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic, run
from pocketdiffusion.runtime.engines.mlprogram.operators import OPERATORS
from pocketdiffusion.runtime.engines.mlprogram.program import read_program
from pocketdiffusion.runtime.errors import ProofError, UserError

pytestmark = pytest.mark.slow  # each test emits a graph

W8, W4 = Scheme("linear", 8), Scheme("linear", 4, 32)
AFFINE, BLOCKS, TABLE = (f"constexpr_{name}" for name in ("affine_dequantize", "blockwise_shift_scale", "lut_to_dense"))

# part, system, scheme of all its matrices, rewrites, the operator that makes them
CASES: list[tuple[str, str, Scheme, tuple[str, ...], str]] = [
    ("text_encoder", "ios16", W8, PLAIN, AFFINE),
    ("vae_decoder", "ios17", W8, PLAIN, AFFINE),
    ("small", "ios17", Scheme("linear", 5), (), AFFINE),
    ("vae_decoder", "ios18", W8, PLAIN, BLOCKS),
    ("text_encoder", "ios18", W4, PLAIN, BLOCKS),
    *(("small", "ios18", scheme, (), BLOCKS) for scheme in (W4, Scheme("linear", 2), Scheme("linear", 6, 8))),
    ("text_encoder", "ios16", Scheme("palette", 6), PLAIN, TABLE),
    *(("small", "ios17", Scheme("palette", bits), (), TABLE) for bits in (1, 2, 4, 8)),
    ("text_encoder", "ios18", Scheme("palette", 6, 16), PLAIN, TABLE),
    *(("small", "ios18", Scheme("palette", bits, 16), (), TABLE) for bits in (1, 2, 3, 4, 8)),
    ("unet", "ios18", Scheme("palette", 6, 16), SPLIT, TABLE),
]
SLOW = [
    ("unet", "ios17", W8, SPLIT, AFFINE),
    ("unet", "ios18", W4, PLAIN, BLOCKS),
    ("vae_encoder", "ios16", Scheme("palette", 4), PLAIN, TABLE),
]
EVERY = [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]
READ = [case for case in EVERY if case is not CASES[-1]] + [pytest.param(CASES[-1], marks=pytest.mark.slow)]
SIZED = [case for case in CASES if case[2] == W4 or case[2].kind == "palette" or case[0] == "text_encoder"]


def label(case: Any) -> str:
    return f"{case[0]} {case[1]} {case[2].storage} {case[2].group}"


class Small(nn.Module):
    """A convolution and a layer, of 64 and 32 input channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(64, 32, 3), nn.Linear(32, 48)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.linear(self.conv(x).tanh().flatten(2).transpose(1, 2)),)


@pytest.fixture(scope="module")
def components(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Component]:
    folder, x = tmp_path_factory.mktemp("small"), torch.randn(1, 64, 5, 5, generator=torch.Generator().manual_seed(0))
    return {**parts(tiny_checkpoint), "small": component_of(folder, Small, {"x": x}, {"y": (1, 9, 48)}, {})}


Written = Callable[[str, str, Scheme, tuple[str, ...]], tuple[Path, Graph, Plan]]


@pytest.fixture(scope="module")
def written(components: Mapping[str, Component], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Folder, graph and plan of a component, written once."""

    @cache
    def write(name: str, profile: str, scheme: Scheme, rewrites: tuple[str, ...]) -> tuple[Path, Graph, Plan]:
        folder, part = tmp_path_factory.mktemp("compressed"), components[name]
        plan = uniform(part, scheme)
        return folder, emit(part, artifact(profile, rewrites), folder, open_batch=False, plan=plan), plan

    return write


@pytest.mark.parametrize("case", READ, ids=label)
def test_coremltools_reads_the_very_numbers(
    components: Mapping[str, Component], written: Written, tmp_path: Path, case: Any
) -> None:
    name, profile, scheme, rewrites, operator = case
    part, (folder, graph, plan) = components[name], written(name, profile, scheme, rewrites)
    assert {k: n for k, n in graph.ops.items() if k.startswith("constexpr_")} == {operator: len(plan.schemes)}
    model = ct.models.MLModel(str(folder / graph.path), skip_model_load=True)
    ct.optimize.coreml.decompress_weights(model).save(str(tmp_path / "dense.mlpackage"))
    names, found = constants(plan.schemes), {}
    for operation in read_program(tmp_path / "dense.mlpackage").operations:
        for key, constant in operation.constants.items():
            if constant in names:
                (value,) = operation.arguments[key]
                assert isinstance(value, Blob)
                found[names[constant]] = read_blob(value)
    assert set(found) == set(plan.schemes)
    for weight, value in found.items():
        wanted = restore(store(part.weights[weight].read(), scheme)).astype(np.float16)
        assert np.array_equal(value.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("case", EVERY, ids=label)
def test_parity_with_torch_of_the_same_plan(components: Mapping[str, Component], written: Written, case: Any) -> None:
    name, profile, scheme, rewrites, _ = case
    part, (folder, graph, plan) = components[name], written(name, profile, scheme, rewrites)
    assert (graph.storage, graph.arithmetic) == (scheme.storage, "float16")
    assert set(graph.ops) <= set(OPERATORS)
    reference = open_quantized(part, rewrites, plan)(feeds(part))
    found = load_runner(folder, "coreml", graph)(feeds(part))
    for output in part.spec.outputs:
        assert psnr(reference[output.name], found[output.name]) >= 58


@pytest.mark.parametrize("case", SIZED, ids=label)
def test_sizes(components: Mapping[str, Component], written: Written, case: Any) -> None:
    """Only the values count: in the file each weight has a header of 64 bytes, which is much for a weight of 256."""
    name, profile, scheme, rewrites, operator = case
    folder, graph, plan = written(name, profile, scheme, rewrites)
    places: dict[Any, int] = {}
    for operation in read_program(folder / graph.path).operations:
        if operation.kind == operator:
            for key, (value, *_) in operation.arguments.items():
                if isinstance(value, Blob):
                    (header,) = np.fromfile(value.file, HEADER, 1, offset=value.offset)
                    places[value.offset] = int(header["size"])
                elif key in ("lut", "scale"):
                    assert isinstance(value, np.ndarray)
                    places[operation.results[0].name, key] = 2 * value.size
    wanted = sum(nbytes(weight.shape, scheme) for weight in weights_of(components[name]).values())
    assert abs(sum(places.values()) / wanted - 1) <= 0.03


@pytest.mark.parametrize("case", [CASES[0], CASES[-2]], ids=label)
def test_two_exports_are_the_same_bytes(
    components: Mapping[str, Component], written: Written, tmp_path: Path, case: Any
) -> None:
    name, profile, scheme, rewrites, _ = case
    folder, graph, plan = written(name, profile, scheme, rewrites)
    part = components[name]
    assert emit(part, artifact(profile, rewrites), tmp_path, open_batch=False, plan=plan) == graph
    for file in graph.files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


REFUSED = [
    (Scheme("linear", 4, 32), ("ios16", "ios17"), "integers of less than 8 bits .* nearest is palette4"),
    (Scheme("linear", 3), ("ios16", "ios17"), "integers of less than 8 bits .* nearest is palette4"),
    (Scheme("linear", 8, 32), ("ios16", "ios17"), "scales for blocks of input channels .* nearest is w8"),
    (Scheme("palette", 3), ("ios16", "ios17"), "tables of 8 values .* nearest is palette4"),
    (Scheme("palette", 6, 16), ("ios16", "ios17"), "tables for groups of output channels .* nearest is palette6"),
    (Scheme("palette", 2, 16), ("ios16", "ios17"), "tables for groups of output channels .* nearest is palette4"),
    (INT8, ("ios16",), "quantize exists from iOS 17 on; the nearest is w8"),
    (Scheme("linear", 8, activation="int16"), ("ios16",), "only integers of 8 bits; the nearest is w8$"),
    (Scheme("linear", 8, activation="int16"), ("ios17", "ios18"), "only integers of 8 bits; the nearest is w8a8"),
    (Scheme("linear", 8, activation="dynamic"), ("ios17", "ios18"), "a constant scale; the nearest is w8a8"),
]


@pytest.mark.parametrize(("scheme", "profiles", "words"), REFUSED)
def test_refusals(
    components: Mapping[str, Component], tmp_path: Path, scheme: Scheme, profiles: tuple[str, ...], words: str
) -> None:
    part = components["vae_decoder"]
    plan = uniform(part, scheme)
    for profile in profiles:
        with pytest.raises(UserError, match=words) as caught:
            emit(part, artifact(profile), tmp_path, open_batch=False, plan=plan)
        assert f"coreml {profile} cannot use the recipe own" in str(caught.value)
    assert not list(tmp_path.iterdir())
    others = {"ios16", "ios17", "ios18"} - {*profiles}
    if scheme.activation in ("float", "int8"):
        assert not any(find_refusal([scheme], "coreml", profile) for profile in others)


class Analysis:
    """An analysis in which the first weight is not sensitive."""

    component, format = "unet", "coreml"

    def __init__(self, profile: str) -> None:
        self.profile = profile

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        return {"conv_in.weight": 0.0, "conv_out.weight": 1.0}


@pytest.mark.parametrize("profile", ["ios16", "ios17", "ios18"])
def test_the_nearest_recipe_is_held(components: Mapping[str, Component], profile: str) -> None:
    """Of whatever a recipe may say."""
    part = components["unet"]
    weights = {name.removeprefix("unet."): weight for name, weight in weights_of(part).items()}
    kinds = [("linear", bits) for bits in range(2, 9)] + [("palette", bits) for bits in (1, 2, 3, 4, 6, 8)]
    refused = set()
    for (kind, bits), group, activation in product(kinds, (0, 16), ("float", "int8", "int16", "dynamic")):
        refusal = find_refusal([Scheme(kind, bits, group, activation)], "coreml", profile)  # type: ignore[arg-type]
        if refusal is not None:
            refused.add(refusal.nearest)
    assert refused and refused <= set(recipe_names())
    for nearest in refused:
        schemes = load_recipe(nearest).plan(weights, Analysis(profile))
        assert find_refusal(schemes.values(), "coreml", profile) is None


def test_float32_beside_others_is_refused(components: Mapping[str, Component], tmp_path: Path) -> None:
    part = components["vae_decoder"]
    plan = uniform(part, W8)
    plan = replace(plan, schemes={**plan.schemes, "decoder.conv_in.weight": FLOAT32})
    with pytest.raises(UserError, match="the recipe own mixes float32 with other storages"):
        emit(part, artifact("ios18"), tmp_path, open_batch=False, plan=plan)


def test_a_scheme_for_each_weight(components: Mapping[str, Component], tmp_path: Path) -> None:
    part = components["unet"]
    several = (W8, Scheme("palette", 4, 16), FLOAT16, Scheme("linear", 4, 16), Scheme("palette", 6))
    plan = Plan("own", {name: several[at % 5] for at, name in enumerate(weights_of(part))})
    graph = emit(part, artifact("ios18", SPLIT), tmp_path, open_batch=False, plan=plan)
    made = [sum(s.kind == kind for s in plan.schemes.values()) for kind in ("linear", "palette")]
    assert graph.storage == "mixed" and [graph.ops[BLOCKS], graph.ops[TABLE]] == made
    reference = open_quantized(part, SPLIT, plan)(feeds(part))["out_sample"]
    assert psnr(reference, load_runner(tmp_path, "coreml", graph)(feeds(part))["out_sample"]) >= 58


def test_an_island_of_float32_has_weights_of_float32(components: Mapping[str, Component], tmp_path: Path) -> None:
    part = components["text_encoder"]
    plan = uniform(part, Scheme("palette", 8))
    graph = emit(part, artifact("ios17", islands=("linear_1",)), tmp_path, open_batch=False, plan=plan)
    made = {o.results[0].name: o.results[0].type.dtype for o in read_program(tmp_path / graph.path).operations}
    wide = {name for name, dtype in made.items() if dtype == "FLOAT32" and name.endswith("weight")}
    assert wide == {"module_text_model_encoder_layers_0_self_attn_k_proj_weight"}
    reference = open_quantized(part, PLAIN, plan)(feeds(part))["last_hidden_state"]
    assert psnr(reference, load_runner(tmp_path, "coreml", graph)(feeds(part))["last_hidden_state"]) >= 58


class Twins(nn.Module):
    """Three layers with the same weight, which coremltools would make one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, 16, bias=False) for _ in range(3))
        if not self.a.weight.is_meta:
            self.b.weight.data, self.c.weight.data = self.a.weight.data.clone(), self.a.weight.data.clone()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x).tanh() + self.b(x).sin() + self.c(x).exp(),)


@pytest.mark.parametrize("profile", ["ios17", "ios18"])
def test_equal_weights_keep_their_own_schemes(tmp_path: Path, profile: str) -> None:
    part = component_of(tmp_path, Twins, {"x": torch.randn(2, 16)}, {"y": (2, 16)}, {})
    plan = Plan("own", {"a.weight": W8, "b.weight": Scheme("palette", 2), "c.weight": W8})
    graph = emit(part, artifact(profile), tmp_path, open_batch=False, plan=plan)
    assert graph.ops[TABLE] == 1 and graph.ops[BLOCKS if profile == "ios18" else AFFINE] == 2
    reference = open_quantized(part, (), plan)(feeds(part))["y"]
    assert psnr(reference, load_runner(tmp_path, "coreml", graph)(feeds(part))["y"]) >= 58


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.used(x) + 0 * self.idle.bias,)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (F.linear(x, 2 * self.inner.weight, self.inner.bias),)


class Scaled(nn.Module):
    """coremltools multiplies the scale into the convolution's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.inner(x) * torch.arange(1.0, 9.0)[:, None, None],)


class Changed(nn.Module):
    """Loads another weight than the file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        found = super().load_state_dict(*arguments, **options)
        self.inner.weight.data *= 1.01
        return found

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.inner(x),)


@pytest.mark.parametrize(
    ("build", "shape", "words"),
    [
        (Unused, (1, 8), r"the Core ML program has no constant for the weight idle\.weight"),
        (Doubled, (1, 8), r"the Core ML program has no constant for the weight inner\.weight"),
        (Scaled, (1, 8, 3, 3), r"the Core ML program has no constant for the weight inner\.weight"),
        (Changed, (1, 8), r"the weight inner\.weight has other values"),
    ],
)
def test_a_weight_that_is_not_there(
    tmp_path: Path, build: type[nn.Module], shape: tuple[int, ...], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = shape if len(shape) == 2 else (1, 8, 1, 1)
    part = component_of(tmp_path, build, {"x": torch.randn(shape)}, {"y": out}, {})
    with pytest.raises(ProofError, match=f"^part: {words}"):
        emit(part, artifact("ios17"), tmp_path / "out", open_batch=False, plan=uniform(part, W8))
    assert not (tmp_path / "out").exists() and capfd.readouterr() == ("", "")


def test_what_failed_leaves_no_trace(components: Mapping[str, Component], written: Written, tmp_path: Path) -> None:
    """The next package is the same byte by byte."""
    name, profile, scheme, rewrites, _ = CASES[0]
    folder, graph, plan = written(name, profile, scheme, rewrites)
    broken = component_of(tmp_path, Unused, {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})
    with pytest.raises(ProofError):
        emit(broken, artifact(profile), tmp_path, open_batch=False, plan=uniform(broken, W8))
    emit(components[name], artifact(profile, rewrites), tmp_path, open_batch=False, plan=plan)
    for file in graph.files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_a_package_that_does_not_hold_the_plan(components: Mapping[str, Component], written: Written) -> None:
    name, profile, scheme, rewrites, _ = CASES[1]
    folder, graph, plan = written(name, profile, scheme, rewrites)
    part, first = components[name], "post_quant_conv.weight"
    check_compressed(folder / graph.path, part, plan, profile)
    for other, words in (
        (Scheme("palette", 4), f"weight {first} is stored by {AFFINE}, and the plan requires {TABLE}"),
        (FLOAT16, f"weight {first} is stored by {AFFINE}, and the plan requires none"),
        (INT8, f"the operator of {first} has no integer input"),
    ):
        with pytest.raises(ProofError, match=words):
            check_compressed(folder / graph.path, part, replace(plan, schemes={**plan.schemes, first: other}), profile)


def test_names_that_a_package_cannot_tell_apart(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(8, 8)}), "a_b": nn.Linear(8, 8)}))

    part = component_of(tmp_path, build, {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})
    with pytest.raises(ProofError, match=r"0\.a.b\.weight and 0\.a.b\.weight have the same name"):
        constants(weights_of(part))


def test_weights_are_decompressed_once(written: Written) -> None:
    """A runner holds them as float16; what it computes is what the program says."""
    folder, graph, _ = written("small", "ios18", Scheme("palette", 4, 16), ())
    runner = open_runner(folder / graph.path, graph.spec)
    assert isinstance(runner, ProgramRunner)
    program, held = read_program(folder / graph.path), runner.program
    assert program.histogram[TABLE] == graph.ops[TABLE] and held.histogram[TABLE] == 0
    own = [v for o in held.operations if "weight" in o.constants for v in o.arguments["weight"]]
    assert len(own) == graph.ops[TABLE]
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float16 for value in own)
    x = {"x": np.random.default_rng(0).standard_normal((1, 64, 5, 5)).astype(np.float32)}
    arithmetics: tuple[Arithmetic, ...] = ("float16", "float32")
    for arithmetic in arithmetics:
        one, other = (run(p, x, arithmetic)["y"] for p in (program, held))
        assert np.array_equal(one, other)
