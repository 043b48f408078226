"""A family that no file of the product knows: one graph more in each step, whose result is added to another's input,
and graphs of other names. It is exported, judged, compared and drawn with, by this file alone.

The reference is a pipeline of diffusers: that of Stable Diffusion, whose `__call__` is as it was, with a UNet that is
given the text's states and a tint of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin, StableDiffusionPipeline
from diffusers.configuration_utils import register_to_config
from support.family_cases import MICRO, edit_json, write_checkpoint
from support.open_engines import OpenEngines
from torch import Tensor, nn

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.compare import compare_two
from pocketdiffusion.export import families
from pocketdiffusion.export.arguments import tensor_shapes
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.safetensors_header import match_tensors
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import stable_diffusion
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.program import Call, Program, Stage, Sum
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.stages import judge_stages

pytestmark = pytest.mark.slow

# The original, as a library has it.


class ToyTint(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """The text's states turned by a matrix, the stronger the more noise there is."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)

    def forward(self, encoder_hidden_states: Tensor, timestep: Tensor) -> Tensor:
        strength = timestep.to(encoder_hidden_states.dtype).reshape(-1, 1, 1) / 1000
        return torch.tanh(self.proj(encoder_hidden_states)) * strength


class ToyPipeline(StableDiffusionPipeline):  # type: ignore[misc]
    """Stable Diffusion, whose UNet is given the states and their tint."""

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        tint: ToyTint,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = False,
    ) -> None:
        super().__init__(
            vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder, False
        )
        self.register_modules(tint=tint)

        def add_tint(owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            states = kwargs["encoder_hidden_states"]
            return args, {**kwargs, "encoder_hidden_states": states + self.tint(states, args[1])}

        unet.register_forward_pre_hook(add_tint, with_kwargs=True)


# The family.

PIPELINES = ("ToyPipeline",)
PIPELINE = "ToyPipeline"
CLASSES = stable_diffusion.CLASSES | {"tint": ("ToyTint",)}
TOKENIZERS = stable_diffusion.TOKENIZERS
NAMES = {"text_encoder": "words", "unet": "denoiser", "vae_decoder": "canvas", "vae_encoder": "eye"}
scheduler_config = stable_diffusion.scheduler_config


class TintGraph(nn.Module):
    """encoder_hidden_states [1, tokens, d] and timestep [1] to tinted [1, tokens, d], float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tint = ToyTint(width)

    def forward(self, encoder_hidden_states: Tensor, timestep: Tensor) -> tuple[Tensor]:
        return (self.tint(encoder_hidden_states, timestep),)


def components(checkpoint: Checkpoint, width: int | None, height: int | None) -> list[Component]:
    parts = [
        replace(part, spec=replace(part.spec, name=NAMES[part.spec.name]))
        for part in stable_diffusion.components(checkpoint, width, height)
    ]
    states = parts[1].spec.inputs[2]
    shape = tuple(int(size) for size in states.shape)
    build = partial(TintGraph, shape[2])
    stored = {f"tint.{name}": ref for name, ref in checkpoint.tensors["tint"].items()}
    weights = match_tensors(tensor_shapes("tint", build), stored, "tint", ())
    spec = GraphSpec(
        "tint", (states, parts[1].spec.inputs[1]), (TensorSpec("tinted", states.shape, "float32", "what is added"),)
    )
    return [*parts, Component(spec, build, weights, partial(example, shape), {})]


def example(shape: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    states = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return {"encoder_hidden_states": states, "timestep": torch.tensor([601.0])}


def program(checkpoint: Checkpoint, specs: Mapping[str, GraphSpec]) -> Program:
    time = "timestep"
    tint = Call(graph="tint", inputs={"encoder_hidden_states": "states", time: time}, outputs={"tinted": "tinted"})
    states = Sum(sum=("states", "tinted"))
    denoiser = Call(
        graph="denoiser",
        inputs={"sample": "scaled_latents", time: time, "encoder_hidden_states": states},
        outputs={"out_sample": "model_output"},
    )
    words = Call(graph="words", inputs={"input_ids": "tokens/1"}, outputs={"last_hidden_state": "states"})
    eye = Call(graph="eye", inputs={"sample": "picture"}, outputs={"latent_parameters": "posterior"})
    canvas = Call(graph="canvas", inputs={"latent_sample": "decoder_latents"}, outputs={"sample": "decoded"})
    return Program(
        guidance="classifier_free",
        absent_negative="encode_empty",
        draws=("posterior", "start", "steps"),
        stages=(
            Stage(stage="encode_prompt", calls=(words,)),
            Stage(stage="encode_image", calls=(eye,)),
            Stage(stage="denoise", calls=(tint, denoiser)),
            Stage(stage="decode", calls=(canvas,)),
        ),
    )


def calls(pipeline: Any) -> dict[str, GraphCall]:
    tint = GraphCall(
        pipeline.tint,
        pipeline.tint,
        lambda given: {
            "encoder_hidden_states": given["encoder_hidden_states"],
            "timestep": given["timestep"].to(torch.float32),
        },
        lambda result: {"tinted": result},
    )
    return {NAMES[name]: call for name, call in stable_diffusion.calls(pipeline).items()} | {"tint": tint}


def modules(pipeline: Any) -> dict[str, dict[str, nn.Module]]:
    found = {NAMES[name]: parts for name, parts in stable_diffusion.modules(pipeline).items()}
    return found | {"tint": {"tint": pipeline.tint}}


# What the product does with it.

FORMATS = {
    "onnx": "generic",
    "tflite": "galaxy-s24",
    "coreml": "iphone-15",
}


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The classes in diffusers, and a file more in the folder of families, which is the registry."""
    folder = tmp_path_factory.mktemp("families")
    (folder / "toy.py").write_text(f"from {__name__} import *\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "__path__", [*families.__path__, str(folder)])
        for made in (ToyTint, ToyPipeline):
            patch.setattr(diffusers, made.__name__, made, raising=False)
        yield


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, registered: None) -> Path:
    folder = write_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("toy") / "model", MICRO).folder
    torch.manual_seed(3)
    tint = ToyTint(16)
    tint.proj.weight.data.mul_(4)
    tint.save_pretrained(folder / "tint")
    edit_json(folder / "model_index.json", _class_name="ToyPipeline", tint=["diffusers", "ToyTint"])
    return folder


@pytest.fixture(scope="module")
def bundles(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Filled by `exported`."""
    return {}


@pytest.fixture(params=["onnx", "tflite", "coreml"])
def bundle(request: pytest.FixtureRequest, model: Path, bundles: dict[str, Bundle], tmp_path_factory: Any) -> Bundle:
    """One export a format."""
    format = request.param
    if format not in bundles:
        out = tmp_path_factory.mktemp("toy") / format
        export(str(model), FORMATS[format], out, ExportOptions(format=format, recipe="fp32"))
        bundles[format] = open_bundle(out)
    return bundles[format]


def test_it_is_exported_and_judged(bundle: Bundle, model: Path) -> None:
    (format,) = bundle.manifest.graphs
    assert set(bundle.manifest.graphs[format]) == {"words", "tint", "denoiser", "canvas", "eye"}
    assert bundle.manifest.model.family == "toy"
    again, _ = judge(bundle, read_golden(bundle)[:1])
    assert all(verdict.passed for verdict in again)
    subjects = {verdict.subject for verdict in bundle.manifest.verdicts if verdict.format == format}
    assert {"tint.tinted", "denoiser.out_sample", "pictures.median"} <= subjects
    assert {"program", "tokenizer", "sampler"} <= {verdict.subject for verdict in again}


def test_it_draws_what_its_pipeline_draws(bundle: Bundle, model: Path) -> None:
    pipeline = ToyPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    (drawn,) = pipeline(
        "red apple",
        negative_prompt="grey",
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
    ).images
    given: dict[str, Any] = {"negative_prompt": "grey", "steps": 4, "guidance": 5.0, "seed": 7}
    ours = draw(bundle, "red apple", **given)
    assert image_psnr_db(np.asarray(drawn), ours) > (45 if "coreml" in bundle.manifest.graphs else 55)
    if "onnx" in bundle.manifest.graphs:  # whose batch is open
        assert image_psnr_db(ours, draw(bundle, "red apple", batched=False, **given)) > 55


def test_its_graphs_are_open_one_at_a_time(bundle: Bundle) -> None:
    """Each step has two graphs. In every format, the picture is the same to the bit, and an error closes all."""
    given: dict[str, Any] = {"negative_prompt": "grey", "steps": 2, "guidance": 5.0, "seed": 7, "sampler": "ddim"}
    usual, low, failing = OpenEngines(), OpenEngines(), OpenEngines(fails=5)
    expected = draw(bundle, "red apple", **given, opener=usual)
    assert np.array_equal(expected, draw(bundle, "red apple", **given, low_memory=True, opener=low))
    assert usual.most() == 2 and usual.opened() == ["words", "tint", "denoiser", "canvas"]
    assert low.most() == 1 and low.opened() == ["words", *("tint", "denoiser") * 2, "canvas"] and low.count() == 0
    with pytest.raises(ValueError, match="not float32") as caught:
        draw(bundle, "red apple", **given, low_memory=True, opener=failing)
    assert caught.value.__traceback__ is not None and failing.count() == 0


def test_it_is_compared(bundle: Bundle, model: Path) -> None:
    """The model beside its bundle: graph by graph, layer by layer, in pictures."""
    facts: Any = {"prompts": ["red apple"], "seed": 0, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    found = compare_two(str(model), str(bundle.folder), **facts, revision=None, token=None, progress=lambda line: None)
    assert found.difference.lowest_db > 45 and len(found.difference.guided_db[0]) == 3  # PNDM's one more
    assert {report.subject.partition(".")[0] for report in found.difference.graphs} == {*NAMES.values(), "tint"}
    assert {error.graph for error in found.layers} == {*NAMES.values(), "tint"} and not found.first_bad_layer


def without_tint(states: Any) -> Program:
    """The program with another input of the denoiser."""
    sound = program(None, {})  # type: ignore[arg-type]
    stages = list(sound.stages)
    tint, denoiser = stages[2].calls
    given = denoiser.inputs | {"encoder_hidden_states": states}
    stages[2] = stages[2].model_copy(update={"calls": (tint, denoiser.model_copy(update={"inputs": given}))})
    return sound.model_copy(update={"stages": tuple(stages)})


@pytest.mark.parametrize("states", ["states", "tinted", Sum(sum=("states", "states")), Sum(sum=("tinted", "tinted"))])
@pytest.mark.parametrize("bundle", ["onnx"], indirect=True)
def test_a_wrong_program_is_blamed(states: Any, bundle: Bundle) -> None:
    """Which no shape tells: the value of another graph, one that is left out, one that is taken twice."""
    faulty = Bundle(bundle.folder, bundle.manifest.model_copy(update={"program": without_tint(states)}))
    failed = {verdict.subject for verdict in judge_stages(faulty, read_golden(faulty)[:1]) if not verdict.passed}
    assert failed == {"program"}
