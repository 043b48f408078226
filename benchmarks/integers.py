"""Measure integer weights and integer arithmetic on a UNet of middle size: bytes, step time, memory, error of one step.

    python benchmarks/integers.py [--format onnx] [--rounds 15] [-o FILE.json]

The UNet has 142 M parameters (block_out_channels 128, 256, 512, 512), seeded random weights and latents of 32x32. Bytes
are the sizes of the artifact's files, with scales. Times are measured for ONNX only: processor time on one thread, all
graphs in turn, each round's ratio to float32, the median over the rounds. Memory: the growth of a process that loads
the graph and runs it once. Error: one step on the inputs that the ranges were calibrated on; other inputs have a larger
error.

Two rows are forms that the backend does not write: weights behind a Cast and a Mul, which onnxruntime computes when it
loads the file; and w8a8 by QuantizeLinear and DequantizeLinear around convolutions and matrix products, which
onnxruntime fuses to QLinearConv and QGemm.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
import typer
from full_size import random_weights
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from sigmoid import interleave
from torch import Tensor, nn

from pocketdiffusion.cli.console import run
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit, find_refusal
from pocketdiffusion.export.backends.onnx.quantization.qdq import ROOM
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts import unet2d
from pocketdiffusion.export.matrices import float_plan, weights_of
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.metrics import psnr_db

UNET: Mapping[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
# Recipes without islands: name, bits, block size, activation, ONNX's profiles.
RECIPES: tuple[tuple[str, int, int, Activation, tuple[str, ...]], ...] = (
    ("w8", 8, 0, "float", ("ort",)),
    ("w4", 4, 32, "float", ("ort",)),
    ("w8a8", 8, 0, "int8", ("ort", "std")),
    ("dynamic8", 8, 0, "dynamic", ("ort", "std")),
    ("w8a16", 8, 0, "int16", ("std",)),
)
_CHILD = """
import sys, numpy, onnxruntime
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
before = resident()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {x.name: numpy.ones(x.shape, numpy.float32) for x in session.get_inputs()})
print(resident() - before)
"""


def write_unet(folder: Path) -> Component:
    """Write the weights to `folder`/unet.safetensors and return the component."""
    config = unet2d.read_config("unet", UNET)
    build = partial(unet2d.Denoiser, config)
    with torch.device("meta"):
        module = build()
    save_file(random_weights(module), folder / "unet.safetensors")
    shapes = {"sample": (1, 4, 32, 32), "timestep": (1,), "encoder_hidden_states": (1, 77, 768)}
    spec = GraphSpec(
        "unet",
        tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items()),
        (TensorSpec("out_sample", shapes["sample"], "float32"),),
    )

    def example(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {**drawn, "timestep": torch.tensor([601.0])}

    return Component(spec, build, read_header(folder / "unet.safetensors"), example, unet2d.sites(config))


def calibrate(part: Component) -> tuple[dict[str, ValueRange], dict[str, ValueRange]]:
    """Return the value ranges of each operator's input and output on the example, by weight."""
    runner = open_rewritten(part, ())
    taken: dict[str, ValueRange] = {}
    given: dict[str, ValueRange] = {}

    def note(module: nn.Module, arguments: tuple[Tensor, ...], result: Tensor, *, name: str) -> None:
        for ranges, x in ((taken, arguments[0]), (given, result)):
            ranges[name] = ValueRange(min(0.0, float(x.min())), max(0.0, float(x.max())))

    for name in weights_of(part):
        owner = runner.module.get_submodule(name.rpartition(".")[0])
        owner.register_forward_hook(partial(note, name=name))
    runner({name: tensor.numpy() for name, tensor in part.example(0).items()})
    return taken, given


def plan_of(part: Component, recipe: str, bits: int, group: int, activation: Activation) -> Plan:
    """Return the plan of a recipe, without value ranges. dynamic8 does not quantize the inputs of convolutions."""
    schemes = {}
    for name, weight in weights_of(part).items():
        takes: Activation = "float" if recipe == "dynamic8" and weight.operator == "conv" else activation
        schemes[name] = Scheme("linear", bits, group, takes)
    return Plan(recipe, schemes)


def write(part: Component, artifact: Artifact, plan: Plan | None, folder: Path) -> tuple[Graph, int]:
    """Write the graph below `folder`, and return it with the size of its files in bytes."""
    folder.mkdir()
    plan = plan or float_plan(part, artifact.recipe)
    graph = emit(part, artifact, folder, open_batch=False, plan=plan)
    return graph, sum((folder / file).stat().st_size for file in graph.files)


def fold_at_load(path: Path, target: Path) -> None:
    """Write the graph with a Cast and a Mul in place of each DequantizeLinear of a weight."""
    model = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        quantized, scale = node.input[:2]
        column = onnx.numpy_helper.to_array(tensors[scale]).reshape(-1, *[1] * (len(tensors[quantized].dims) - 1))
        model.graph.initializer.append(onnx.numpy_helper.from_array(column, f"{scale}.column"))
        result = node.output[0]
        nodes.append(onnx.helper.make_node("Cast", [quantized], [f"{result}.quantized"], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{result}.quantized", f"{scale}.column"], [result]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save_beside(model, path, target)


def round_to_bytes(path: Path, target: Path) -> None:
    """Write a graph of 16-bit activations as one of 8 bits: inputs, outputs and biases."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        quantized, scale, zero_point = (constant(value) for value in [*node.inputs, None][:3])
        wider = scale * np.float32(257)
        if zero_point is not None and zero_point.dtype == np.uint16:
            new = {1: wider, 2: np.array(np.clip(np.rint(zero_point / 257), 0, 255), np.uint8)}
        elif quantized is not None and quantized.dtype == np.int32:
            new = {0: np.rint(quantized * scale.astype(np.float64) / wider).astype(np.int32), 1: wider}
        else:
            continue
        for place, array in new.items():
            node.replace_input_with(place, register(model, f"{node.name}.{place}", array))
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    save_beside(proto, path, target)


def constant(value: ir.Value | None) -> Any:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def register(model: ir.Model, name: str, array: Any) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.initializers.add(value)
    return value


def save_beside(model: Any, path: Path, target: Path) -> None:
    target.parent.mkdir()
    onnx.save(model, target)
    os.link(path.with_name("model.onnx_data"), target.with_name("model.onnx_data"))


def grown(path: Path) -> int:
    """Return the bytes of resident memory by which a child process grows."""
    command = [sys.executable, "-c", _CHILD, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_onnx(part: Component, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each graph, float32 first."""
    own = replace(find_backend("onnx").default, recipe="fp32")
    paths: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    graph, size = write(part, own, None, folder / "fp32 ort")
    paths["fp32 ort"], sizes["fp32 ort"] = folder / "fp32 ort" / graph.path, size
    inputs, outputs = calibrate(part)
    for recipe, bits, group, activation, profiles in RECIPES:
        plan = plan_of(part, recipe, bits, group, activation)
        if activation in ("int8", "int16"):
            plan = replace(plan, inputs=inputs, outputs=outputs)
        for profile in profiles:
            name = f"{recipe} {profile}"
            graph, sizes[name] = write(part, replace(own, profile=profile, recipe=recipe), plan, folder / name)
            paths[name] = folder / name / graph.path
    given = {name: ValueRange(each.low / ROOM, each.high / ROOM) for name, each in outputs.items()}
    plan = replace(plan_of(part, "w8a16", 8, 0, "int16"), inputs=inputs, outputs=given)
    graph, _ = write(part, replace(own, profile="std", recipe="w8a16"), plan, folder / "without room")
    source = folder / "without room" / graph.path
    for name, before, change in (
        ("w8 by Cast, Mul", paths["w8 ort"], fold_at_load),
        ("w8a8 by QLinearConv", source, round_to_bytes),
    ):
        paths[name] = folder / name / "model.onnx"
        change(before, paths[name])
        sizes[name] = sum(file.stat().st_size for file in paths[name].parent.iterdir())
    runners: dict[str, Runner] = {name: open_runner(path, part.spec, threads=1) for name, path in paths.items()}
    example = {name: tensor.numpy() for name, tensor in part.example(0).items()}
    times = interleave(runners, example, rounds)
    exact = runners["fp32 ort"](example)["out_sample"]
    rows = []
    for name, runner in runners.items():
        ratios = sorted(a / b for a, b in zip(times[name], times["fp32 ort"], strict=True))
        error = psnr_db(exact, runner(example)["out_sample"], float(np.abs(exact).max()))
        rows.append(
            {
                "graph": name,
                "bytes": sizes[name],
                "bytes_ratio": round(sizes[name] / sizes["fp32 ort"], 4),
                "ms": round(median(times[name]), 1),
                "ratio": round(median(ratios), 3),
                "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[3 * len(ratios) // 4], 3)],
                "grown_mb": round(grown(paths[name]) / 1e6),
                "step_db": round(error, 1) if name != "fp32 ort" else None,
            }
        )
    return rows


def measure_bytes(part: Component, format: str, folder: Path) -> dict[str, Any]:
    """Return the bytes of recipe w8 and of fp32, and their ratio."""
    plan = plan_of(part, "w8", 8, 0, "float")
    artifact = find_backend(format).default
    refusal = find_refusal(plan.schemes.values(), format, artifact.profile)
    if refusal is not None:
        return {"format": format, "refused": refusal.reason}
    _, complete = write(part, replace(artifact, recipe="fp32"), None, folder / f"{format} fp32")
    _, small = write(part, replace(artifact, recipe="w8"), plan, folder / f"{format} w8")
    return {"format": format, "fp32": complete, "w8": small, "ratio": round(small / complete, 4)}


def main(
    format: Annotated[list[str] | None, typer.Option(help="onnx, coreml or tflite. Can be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Number of calls of each graph.")] = 15,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/integers.json"),
) -> None:
    torch.set_num_threads(1)
    formats = format or ["onnx"]
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        part = write_unet(Path(scratch))
        sizes = [measure_bytes(part, name, Path(scratch)) for name in formats]
        (Path(scratch) / "graphs").mkdir()
        rows = measure_onnx(part, Path(scratch) / "graphs", rounds) if "onnx" in formats else []
    figures = {"vnni": "vnni" in Path("/proc/cpuinfo").read_text(), "bytes": sizes, "onnx": rows}
    show(figures)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=1) + "\n")


def show(figures: Mapping[str, Any]) -> None:
    table = Table("format", "fp32 MB", "w8 MB", "ratio", title="bytes of the files, with scales")
    for row in figures["bytes"]:
        if "refused" in row:
            table.add_row(row["format"], "-", "-", f"refused: {row['refused']}")
        else:
            table.add_row(row["format"], f"{row['fp32'] / 1e6:.1f}", f"{row['w8'] / 1e6:.1f}", f"{row['ratio']:.4f}")
    Console(width=140).print(table)
    if figures["onnx"]:
        title = f"ONNX on this processor, {'with' if figures['vnni'] else 'without'} VNNI"
        table = Table("graph", "MB", "of fp32", "ms", "of fp32", "quartiles", "memory MB", "step dB", title=title)
        for row in figures["onnx"]:
            quartiles = f"{row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f}"
            error = "-" if row["step_db"] is None else f"{row['step_db']:.1f}"
            numbers = (f"{row['bytes'] / 1e6:.1f}", f"{row['bytes_ratio']:.3f}", f"{row['ms']:.0f}")
            table.add_row(row["graph"], *numbers, f"{row['ratio']:.3f}", quartiles, str(row["grown_mb"]), error)
        Console(width=140).print(table)


if __name__ == "__main__":
    run(lambda: typer.run(main))
