"""Core ML packages with integer activations: where they are, their values, and the loss in dB."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.compressed_packages import INT8, SPLIT, artifact, feeds, uniform
from support.traced_parts import component_of, psnr
from test_coreml import parts
from torch import Tensor, nn

from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.backends.coreml.intermediate_outputs import constants
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.quantize.measure.fake_quantize import rounded
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.program import Name, Operation, read_program
from pocketdiffusion.runtime.engines.mlprogram.rounding import round_half
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array

AFFINE = "constexpr_affine_dequantize"
Emitted = tuple[Path, Graph, Plan]


def calibrated(part: Component, plan: Plan) -> Plan:
    """Return the plan with the value ranges of the inputs on the part's example."""
    runner = open_quantized(part, (), Plan("fp32", {}))
    ranges: dict[str, ValueRange] = {}

    def note(weight: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            ranges[weight] = ValueRange(min(0.0, float(x.min())), max(0.0, float(x.max())))

        return hook

    for weight, scheme in plan.schemes.items():
        if scheme.activation == "int8":
            runner.module.get_submodule(weight.rpartition(".")[0]).register_forward_pre_hook(note(weight))
    runner(feeds(part))
    return replace(plan, inputs=ranges)


@pytest.fixture(scope="module")
def unet(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """Return folder, graph and plan of the tiny UNet, with integer inputs of all operators."""
    part, folder = parts(tiny_checkpoint)["unet"], tmp_path_factory.mktemp("integers")
    plan = calibrated(part, uniform(part, INT8))
    return folder, emit(part, artifact("ios17", SPLIT), folder, open_batch=False, plan=plan), plan


def test_operators_that_take_the_same_share_its_integers(unet: Emitted) -> None:
    """Shared are the inputs of queries, keys and values of 4 self-attentions, of all 8 keys and values of the prompt,
    and of all 8 projections of the time embedding."""
    folder, graph, plan = unet
    assert (graph.storage, graph.arithmetic, graph.ops[AFFINE]) == ("int8", "int8", len(plan.schemes))
    assert graph.ops["quantize"] == graph.ops["dequantize"] == len(plan.schemes) - 4 * 2 - 7 - 7
    program, names = read_program(folder / graph.path), constants(plan.schemes)
    consumers = [o for o in program.operations if any(name.endswith("_dequantized") for name in o.uses)]
    assert len(consumers) == len(plan.schemes) and {o.kind for o in consumers} == {"conv", "linear"}
    given = {names[name]: o.arguments["x"] for o in consumers for name in o.uses if name in names}
    block = "unet.mid_block.attentions.0.transformer_blocks.0"
    assert len({given[f"{block}.attn1.to_{x}.weight"] for x in "qkv"}) == 1
    assert given[f"{block}.attn2.to_k.weight"] != given[f"{block}.attn2.to_q.weight"]


def test_integers_have_the_calibrated_ranges(unet: Emitted) -> None:
    folder, graph, plan = unet
    program = read_program(folder / graph.path)
    makers = {o.results[0].name: o for o in program.operations}
    names = constants(plan.schemes)
    for operation in program.operations:
        weight = next((names[name] for name in operation.uses if name in names), None)
        if weight is None:
            continue
        (back,) = operation.arguments["x"]
        assert isinstance(back, Name)
        (quantized_name,) = makers[back.name].arguments["input"]
        assert isinstance(quantized_name, Name) and makers[quantized_name.name].results[0].type.dtype == "INT8"
        for pair in (makers[back.name], makers[quantized_name.name]):
            (scale,), (zero_point,) = pair.arguments["scale"], pair.arguments["zero_point"]
            assert isinstance(scale, np.ndarray) and isinstance(zero_point, np.ndarray)
            assert (float(scale), int(zero_point)) == affine(plan.inputs[weight], 8) and scale.dtype == np.float16


@pytest.mark.parametrize("name", ["vae_encoder", "text_encoder"])
def test_integers_in_float32_are_torchs(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """In float16 many values round to the integer next to torch's; here few do, and the other ones are exact."""
    part = parts(tiny_checkpoint)[name]
    plan = calibrated(part, uniform(part, Scheme("float", 32, activation="int8")))
    graph = emit(part, artifact("ios18"), tmp_path, open_batch=False, plan=plan)
    assert (graph.storage, graph.arithmetic) == ("float32", "int8") and graph.ops["quantize"] == graph.ops["dequantize"]
    reference, exact = (open_quantized(part, (), p)(feeds(part)) for p in (plan, Plan("fp32", {})))
    found = load_runner(tmp_path, "coreml", graph)(feeds(part))
    for output in (t.name for t in part.spec.outputs):
        assert psnr(reference[output], found[output]) >= psnr(exact[output], reference[output]) + 15


def test_integers_cost_what_they_cost_in_torch(tiny_checkpoint: Path, unet: Emitted) -> None:
    """Every pair rounds its input as `rounded` does, and the loss of all pairs is as many dB."""
    part, (folder, graph, plan) = parts(tiny_checkpoint)["unet"], unet
    ranges = {affine(value_range, 8): value_range for value_range in plan.inputs.values()}
    values: dict[str, Array] = {}
    wanted: dict[str, Array] = {}  # by the name of the quantized tensor
    checked = 0

    def observe(operation: Operation, name: str, value: Array) -> None:
        nonlocal checked
        values[name] = value
        if operation.kind == "quantize":
            (x,), (scale,), (zero_point,) = (operation.arguments[key] for key in ("input", "scale", "zero_point"))
            assert isinstance(x, Name) and value.dtype == np.int8
            value_range = ranges[float(scale), int(zero_point)]  # type: ignore[arg-type]
            wanted[name] = rounded(torch.from_numpy(values[x.name]), value_range, 8).numpy()
        elif operation.kind == "dequantize":
            (quantized_name,) = operation.arguments["input"]
            assert isinstance(quantized_name, Name) and np.array_equal(value, round_half(wanted[quantized_name.name]))
            checked += 1

    example = part.example(0)
    own = {name: tensor.numpy() for name, tensor in example.items()}
    own["encoder_hidden_states"] = own["encoder_hidden_states"].transpose(0, 2, 1)[:, :, None]
    found = run(read_program(folder / graph.path), own, "float16", observe)["noise_pred"]
    assert checked == graph.ops["dequantize"]
    quantized, exact = (open_quantized(part, (), p)(feeds(part))["out_sample"] for p in (plan, Plan("fp32", {})))
    assert abs(psnr(exact, found) - psnr(exact, quantized)) <= 1


class Alone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 16)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.inner(x),)


def test_one_layer_of_integers(tmp_path: Path) -> None:
    """It is refused without a value range, and computed with one."""
    part = component_of(tmp_path, Alone, {"x": torch.randn(4, 64)}, {"y": (4, 16)}, {})
    plan = uniform(part, INT8)
    with pytest.raises(ProofError, match=r"^inner\.weight: the plan has no calibrated value range"):
        emit(part, artifact("ios17"), tmp_path, open_batch=False, plan=plan)
    plan = calibrated(part, plan)
    graph = emit(part, artifact("ios17"), tmp_path, open_batch=False, plan=plan)
    reference = open_quantized(part, (), plan)(feeds(part))["y"]
    assert psnr(reference, load_runner(tmp_path, "coreml", graph)(feeds(part))["y"]) >= 58


def test_an_embedding_takes_no_integers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = parts(tiny_checkpoint)["text_encoder"]
    plan = Plan("own", dict.fromkeys(weights_of(part), INT8), dict.fromkeys(weights_of(part), ValueRange(-1, 1)))
    with pytest.raises(ProofError, match="token_embedding.weight belongs to the operator gather"):
        emit(part, artifact("ios17"), tmp_path, open_batch=False, plan=plan)
