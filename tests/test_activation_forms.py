"""The forms of activations: in every format what the report says of it, and what each costs in float16."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.traced_parts import component_of, psnr
from torch import nn
from transformers.activations import QuickGELUActivation

from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.float16.activation_forms import FORMS, SIGMOIDS, choice, measure_forms
from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.export.targets import Artifact, load_target, target_names
from pocketdiffusion.runtime.engines import load_runner

SITES = {"gelu": 1, "quick_gelu": 1, "silu": 1}
DIALECTS = (("onnx", "ort"), ("onnx", "std"), ("coreml", "ios16"), ("tflite", "std"))
OWN = {  # sigmoids, tanhs and fused operators of the three activations, as each backend lowers them
    ("onnx", "ort"): {"QuickGelu": 2, "Gelu": 1},
    ("onnx", "std"): {"Sigmoid": 2, "Gelu": 1},
    ("coreml", "ios16"): {"silu": 1, "gelu": 2},
    ("tflite", "std"): {"LOGISTIC": 2, "GELU": 1},
}
COUNTED = {*SIGMOIDS, "QuickGelu", "Gelu", "GELU", "silu", "gelu", "Tanh", "TANH", "tanh"}


class Activations(nn.Module):
    """A matrix, so that a backend has something to fold into, and one activation of each kind beside the others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.silu, self.quick_gelu, self.gelu = nn.SiLU(), QuickGELUActivation(), nn.GELU()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        x = self.linear(x)
        return (torch.cat([self.silu(x), self.quick_gelu(x + 1), self.gelu(x - 1)], dim=-1),)


def part(folder: Path) -> Component:
    inputs = {"x": 6 * torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(0))}
    return component_of(folder, Activations, inputs, {"y": (1, 24, 48)}, SITES)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("to_tanh", [False, True])
def test_what_each_format_makes_of_them(tmp_path: Path, dialect: tuple[str, str], to_tanh: bool) -> None:
    format, profile = dialect
    rewrites = ("tanh_sigmoid", "tanh_gelu") if to_tanh else ("quick_gelu",)
    given, wanted = part(tmp_path), Artifact(format, profile, "fp32", "cpu", rewrites)
    graph = emit_floats(given, wanted, tmp_path, open_batch=False)
    found = {name: count for name, count in graph.ops.items() if name in COUNTED}
    if to_tanh:
        tanh = "TANH" if format == "tflite" else "Tanh" if format == "onnx" else "tanh"
        assert found == {tanh: 2, next(name for name in OWN[dialect] if name.lower() == "gelu"): 1}
    else:
        assert found == OWN[dialect]
        forms = [choice(wanted, kind).form for kind in ("silu", "quick_gelu")]
        assert sum(found.get(name, 0) for name in SIGMOIDS) == forms.count("product")
    assert {choice(wanted, kind).form for kind in SITES} == (
        {"tanh", "tanh, fused"} if to_tanh else {"fused", choice(wanted, "silu").form}
    )
    module = load_module(given)
    apply_rewrites(module, rewrites)
    example = given.example(0)
    with torch.no_grad():
        reference = module(*example.values())[0].numpy()
        original = load_module(given)(*example.values())[0].numpy()
    y = load_runner(tmp_path, format, graph)({name: tensor.numpy() for name, tensor in example.items()})["y"]
    assert psnr(reference, y) > 115
    assert (psnr(original, y) > 105) != to_tanh


def test_every_artifact_has_its_choices() -> None:
    for format in backend_names():
        for profile in find_backend(format).profiles:
            for kind in FORMS:
                assert choice(
                    Artifact(format, profile, "fp16", "cpu", find_backend(format).default.rewrites), kind
                ).reason


def test_targets_that_hold_no_sigmoid() -> None:
    """Issue 4: at least one shipped target replaces its sigmoids."""
    fused = {
        name
        for name in target_names()
        if all(choice(a, kind).form == "fused" for a in load_target(name).artifacts for kind in FORMS)
    }
    assert fused == {"galaxy-a13", "iphone-15", "iphone-16", "pixel-8"}


@pytest.mark.parametrize("kind", FORMS)
def test_the_forms_are_the_function(kind: str) -> None:
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    exact = {"silu": F.silu, "quick_gelu": QuickGELUActivation(), "gelu": F.gelu}[kind](x)
    for name, form in FORMS[kind].items():
        off = (form(x) - exact).abs().max()
        assert (4e-4 < off < 5e-4) if kind == "gelu" and "tanh" in name else off < 1e-9, name


def test_errors_are_those_of_the_inputs(tmp_path: Path) -> None:
    """Two calls: sites are counted once, and what tanh loses is in the tail alone."""
    given = part(tmp_path)
    calls = [{"x": np.full((1, 24, 16), value, np.float32)} for value in (-9.0, 2.0)]
    errors = {(error.kind, error.form): error for error in measure_forms(given, calls)}
    assert {kind for kind, _ in errors} == set(SITES) and all(error.sites == 1 for error in errors.values())
    fused, by_tanh = errors["silu", "fused"], errors["silu", "tanh"]
    assert fused.tail < 1e-3 < by_tanh.tail and fused.psnr_db > by_tanh.psnr_db and 0 < fused.tail_share < 1
    with torch.no_grad():
        linear = load_module(given).get_submodule("linear")
        x = torch.cat([linear(torch.from_numpy(call["x"])) for call in calls])
        off = (F.silu(x.half()).double() - F.silu(x.half().double())).abs().max()
    assert fused.max_abs == pytest.approx(float(off))
    assert measure_forms(component_of(tmp_path, partial(nn.Linear, 4, 4), {"x": torch.ones(1, 4)}, {}, {}), []) == []
