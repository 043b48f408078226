"""Compare the forms of SiLU, QuickGELU and GELU: speed and precision.

    python benchmarks/sigmoid.py [--rounds 15] [-o FILE.json]

Speed: each form on [1, 320, 64, 64], as SD1.5 has it, and the complete UNet of the built-in model, through the
backends' own lowerings; processor time on one thread, all forms in turn, the median over the rounds. Precision: float16
compared with float64, on the inputs of every activation of the built-in model along real trajectories
(export/float16/activation_forms.py); and the UNet's output with its activations computed in this form, all else in
float32.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.activations import QuickGELUActivation

from pocketdiffusion.cli.console import run
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.float16.activation_forms import FORMS, measure_forms
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import onnx, tflite
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs
from pocketdiffusion.runtime.verify.check import NONE, Check
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory, cases

SHAPE = (1, 320, 64, 64)
ENGINES = (("onnx", "ort"), ("onnx", "std"), ("tflite", "std"))
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "quick_gelu": QuickGELUActivation,
    "gelu": nn.GELU,
}
REWRITE = {"silu": "tanh_sigmoid", "quick_gelu": "tanh_sigmoid", "gelu": "tanh_gelu"}
_OPEN: Mapping[str, Callable[..., Runner]] = {"onnx": onnx.open_runner, "tflite": tflite.open_runner}


class Alone(nn.Module):
    """A graph that consists of one activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.activation(x),)


def component_of(kind: str) -> Component:
    spec = GraphSpec("part", (TensorSpec("x", SHAPE, "float32"),), (TensorSpec("y", SHAPE, "float32"),))

    def example(seed: int) -> dict[str, Tensor]:
        return {"x": 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))}

    return Component(spec, lambda: Alone(ACTIVATIONS[kind]()), {}, example, {kind: 1})


def artifact_of(format: str, profile: str, with_tanh: Sequence[str]) -> Artifact:
    """Return an artifact as targets have it, with the rewrites `with_tanh`, which replace `quick_gelu` if they cover
    it."""
    own = find_backend(format).default.rewrites
    return Artifact(format, profile, "fp32", "cpu", (*own, *with_tanh))


def open_part(part: Component, artifact: Artifact, folder: Path) -> tuple[Runner, dict[str, int]]:
    graph = emit_floats(part, artifact, folder, open_batch=False)
    return _OPEN[artifact.format](folder / graph.path, graph.spec, threads=1), graph.ops


def measure_speed(subjects: Mapping[str, tuple[Component, Sequence[str]]], rounds: int) -> list[dict[str, Any]]:
    """Return rows for each subject and engine: as the backend lowers it, and with the rewrites to tanh.
    Milliseconds, called in turn."""
    rows: list[dict[str, Any]] = []
    for subject, (part, rewrites) in subjects.items():
        inputs = {name: tensor.numpy() for name, tensor in part.example(0).items()}
        with TemporaryDirectory() as scratch:
            opened = {}
            for format, profile in ENGINES:
                for form, names in {"own": (), **{name: (name,) for name in rewrites}}.items():
                    folder = Path(scratch) / f"{format}-{profile}-{form}"
                    folder.mkdir()
                    opened[format, profile, form] = open_part(part, artifact_of(format, profile, names), folder)
            times = interleave({key: runner for key, (runner, _) in opened.items()}, inputs, rounds)
            for (format, profile, form), (_, ops) in opened.items():
                ratios = sorted(
                    a / b for a, b in zip(times[format, profile, form], times[format, profile, "own"], strict=True)
                )
                rows.append(
                    {
                        "subject": subject,
                        "engine": f"{format} {profile}",
                        "form": form,
                        "operators": {k: n for k, n in ops.items() if k in _SHOWN},
                        "ms": round(median(times[format, profile, form]), 3),
                        "ratio": round(median(ratios), 3),
                        "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[3 * len(ratios) // 4], 3)],
                    }
                )
    return rows


_SHOWN = ("Sigmoid", "QuickGelu", "Tanh", "Gelu", "LOGISTIC", "TANH", "GELU")


def interleave(runners: Mapping[Any, Runner], inputs: Mapping[str, Array], rounds: int) -> dict[Any, list[float]]:
    """Return the milliseconds of processor time of each runner's calls, after one warm-up call: one call of each in
    every round, in a random order, because a call is slower after another engine's call."""
    rng = random.Random(0)
    times: dict[Any, list[float]] = {key: [] for key in runners}
    for number in range(rounds + 1):
        for key in rng.sample(list(runners), len(runners)):
            start = time.process_time()
            runners[key](inputs)
            if number:
                times[key].append(1e3 * (time.process_time() - start))
    return times


class InForm(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Compute the activations in one form, in float16, and everything else unchanged."""

    def __init__(self, forms: Mapping[Any, Callable[[Tensor], Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forms = forms

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.forms and not kwargs:
            return self.forms[func](args[0].half()).float()
        return func(*args, **(kwargs or {}))


class FormRunner:
    """A component in torch whose SiLUs or GELUs have one form."""

    def __init__(self, part: Component, kind: str, form: str) -> None:
        self.spec, self.module = part.spec, load_module(part)
        operator = {"silu": torch.ops.aten.silu.default, "gelu": torch.ops.aten.gelu.default}[kind]
        self.mode = InForm({operator: FORMS[kind][form]})

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        with self.mode:
            outputs = self.module(*(torch.from_numpy(inputs[t.name].copy()) for t in self.spec.inputs))
        return {t.name: o.numpy() for t, o in zip(self.spec.outputs, outputs, strict=True)}


def measure_precision(parts: Sequence[Component], trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    rows = []
    for part in parts:
        calls = [case.inputs for t in trajectories for case in cases(part.spec.name, t)]
        for error in measure_forms(part, calls):
            row = {"graph": part.spec.name, **vars(error)}
            if part.spec.name == "unet":
                runner = FormRunner(part, error.kind, error.form)
                (report,) = judge_graph(Check(Kind.COMPARED, NONE), runner, trajectories)
                row["output_db"] = report.psnr_db
            rows.append(row)
    return rows


def main(
    rounds: Annotated[int, typer.Option(help="Number of calls of each form.")] = 15,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/sigmoid.json"),
) -> None:
    torch.set_num_threads(1)
    checkpoint = open_checkpoint("emoji")
    parts = components(checkpoint)
    trajectories = record(
        checkpoint, parts, [Request(p, seed=50 + i, steps=10, guidance=5.0) for i, p in enumerate(SHEET[:6])]
    )
    precision = measure_precision(parts, trajectories)
    alone = {kind: (component_of(kind), (REWRITE[kind],)) for kind in ACTIVATIONS}
    speed = measure_speed({**alone, "unet": (parts[1], ("tanh_sigmoid", "tanh_gelu"))}, rounds)
    show(precision, speed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"precision": precision, "speed": speed}, indent=1) + "\n")


def show(precision: Sequence[Mapping[str, Any]], speed: Sequence[Mapping[str, Any]]) -> None:
    table = Table("graph", "activation", "form", "sites", "worst site dB", "largest error", "tail", "UNet's output dB")
    for row in precision:
        after = f"{row['output_db']:.1f}" if "output_db" in row else "-"
        numbers = (f"{row['psnr_db']:.1f}", f"{row['max_abs']:.1e}", f"{row['tail']:.1%}", after)
        table.add_row(row["graph"], row["kind"], row["form"], str(row["sites"]), *numbers)
    table.title = "float16 against float64, on real activations"
    Console(width=140).print(table)
    table = Table("subject", "engine", "form", "operators", "ms", "ratio to own", "quartiles", title="processor time")
    for row in speed:
        operators = ", ".join(f"{count} {name}" for name, count in row["operators"].items())
        quartiles = f"{row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f}"
        ms, ratio = f"{row['ms']:.2f}", f"{row['ratio']:.2f}"
        table.add_row(row["subject"], row["engine"], row["form"], operators, ms, ratio, quartiles)
    Console(width=140).print(table)


if __name__ == "__main__":
    run(lambda: typer.run(main))
