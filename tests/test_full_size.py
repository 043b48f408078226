"""The UNet of Stable Diffusion 1.5 in full size, with seeded random weights: one call of each artifact in float16.

benchmarks/full_size_unet.py measures what that costs.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families.parts import unet2d
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.metrics import Comparison, measure
from pocketdiffusion.runtime.verify.tolerances import floor_db

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from full_size import UNET, random_weights  # noqa: E402

SPEC = GraphSpec(
    "unet",
    (
        TensorSpec("sample", (1, 4, 64, 64), "float32"),
        TensorSpec("timestep", (1,), "float32"),
        TensorSpec("encoder_hidden_states", (1, 77, 768), "float32"),
    ),
    (TensorSpec("out_sample", (1, 4, 64, 64), "float32"),),
)


@dataclass(frozen=True)
class FullSize:
    """The component, and what the original gives on its example: with its own weights, and with matrices in float16."""

    part: Component
    original: Array
    rounded: Array


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    config, folder = unet2d.read_config("unet", UNET), tmp_path_factory.mktemp("full_size")
    generator = torch.Generator().manual_seed(1)
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in SPEC.inputs}
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    inputs["timestep"] = torch.tensor([601.0])
    build = partial(unet2d.Denoiser, config)
    with torch.device("meta"):
        hollow = build()
    save_file(random_weights(hollow), folder / "unet.safetensors")
    part = Component(SPEC, build, read_header(folder / "unet.safetensors"), lambda _: inputs, unet2d.sites(config))
    module = load_module(part)
    with torch.no_grad():
        (original,) = module(*inputs.values())
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
        (rounded,) = module(*inputs.values())
    return FullSize(part, original.numpy(), rounded.numpy())


@pytest.mark.slow
@pytest.mark.parametrize(("format", "phone"), [("coreml", "iphone-15"), ("tflite", "galaxy-s24")])
def test_one_call(unet: FullSize, tmp_path: Path, format: str, phone: str) -> None:
    (wanted,) = load_target(phone).artifacts
    graph = emit_floats(unet.part, wanted, tmp_path, open_batch=False)
    assert graph.parameters == 859_520_964
    sizes = [file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()]
    assert 2 * graph.parameters < sum(sizes) < 2**31
    inputs = {name: tensor.numpy() for name, tensor in unet.part.example(0).items()}
    found = load_runner(tmp_path, format, graph)(inputs)["out_sample"]
    references = [(unet.original, floor_db(Scope(storage=graph.storage, arithmetic=graph.arithmetic)))]
    if graph.arithmetic == "float32":
        references.append((unet.rounded, floor_db(Scope())))
    for reference, floor in references:
        report = measure(
            "unet.out_sample",
            [Comparison("", reference, found)],
            Check(Kind.ARTIFACT, Tolerance(floor), Scope(recipe="fp16")),
        )
        assert report.passed, report.describe()
