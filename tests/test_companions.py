"""What a bundle says to pipelines that are not ours: optimum's, and Apple's."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
from support.family_cases import edit_json

from pocketdiffusion.export.backends.coreml.apple_sampler import differences
from pocketdiffusion.export.backends.onnx.optimum_layout import write_companions
from pocketdiffusion.export.bundle_writer import assemble
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.pipeline import open_pipeline
from pocketdiffusion.export.reference.scheduler import set_sampler
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.sampling.samplers import default_sampler
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.verify.golden import read_golden

SD1 = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def assembled(checkpoint: Path, bundle: Path, folder: Path, format: str, **graph: Any) -> UnsealedManifest:
    """What is written beside the graphs, for those of `bundle`, named as another format's or changed."""
    graphs = dict(open_bundle(bundle).manifest.graphs["onnx"])
    unet: Graph = graphs["unet"]
    graphs["unet"] = unet.model_copy(update={"compute_unit": "ane"} | graph)
    (folder / format).mkdir(parents=True)
    trajectories = read_golden(open_bundle(bundle))
    return assemble(folder, open_checkpoint(str(checkpoint)), load_target("generic"), {format: graphs}, trajectories)


def test_optimums_files_are_there_only_where_it_can_run_the_graphs(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """A UNet of 16-bit activations has a batch of 1, on a target that leaves the batch open."""
    assembled(tiny_checkpoint, tiny_bundle, tmp_path / "open", "onnx")
    assert (tmp_path / "open/onnx/model_index.json").exists()
    spec = open_bundle(tiny_bundle).manifest.graphs["onnx"]["unet"].spec
    first, *others = spec.inputs
    closed = replace(spec, inputs=(replace(first, shape=(1, *first.shape[1:])), *others))
    assembled(tiny_checkpoint, tiny_bundle, tmp_path / "closed", "onnx", spec=closed)
    assert list((tmp_path / "closed/onnx").iterdir()) == []


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_karras"])
def test_optimum_draws_with_the_sampler_that_took_the_place(
    sampler: str, micro_checkpoint: Path, tmp_path: Path
) -> None:
    """Its files name the scheduler, with all its settings, that the reference was drawn with."""
    checkpoint = replace(open_checkpoint(str(micro_checkpoint)), sampler=sampler)
    for graph in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        (tmp_path / graph).mkdir()
    write_companions(tmp_path, checkpoint, 16, 16)
    pipeline = open_pipeline(checkpoint)
    assert set_sampler(checkpoint, pipeline) == sampler
    library, name = json.loads((tmp_path / "model_index.json").read_text())["scheduler"]
    assert (library, name) == ("diffusers", type(pipeline.scheduler).__name__)
    theirs, drawn = getattr(diffusers, name).from_pretrained(tmp_path / "scheduler").config, pipeline.scheduler.config
    own = [key for key in drawn if not key.startswith("_")]
    assert len(own) > 10 and {key: theirs[key] for key in own} == {key: drawn[key] for key in own}
    assert json.loads((tmp_path / "scheduler/scheduler_config.json").read_text())["_class_name"] == name


@pytest.mark.parametrize(
    ("changed", "clauses"),
    [
        ({}, []),
        ({"_class_name": "DPMSolverMultistepScheduler", "steps_offset": 0}, []),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, []),
        ({"prediction_type": "v_prediction"}, ["this model predicts v_prediction"]),
        ({"prediction_type": "sample"}, ["this model predicts sample"]),
        ({"beta_schedule": "linear"}, ["betas"]),
        ({"beta_end": 0.02}, ["betas"]),
        ({"num_train_timesteps": 500}, ["over 500 steps"]),
        ({"rescale_betas_zero_snr": True}, ["rescaled to a signal of zero"]),
        ({"_class_name": "DDIMScheduler"}, ["this model by ddim"]),
        ({"_class_name": "EulerDiscreteScheduler"}, ["this model by euler"]),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, ["dpmpp_2m_karras"]),
        ({"steps_offset": 0}, ["this model with 0 and False"]),
        ({"set_alpha_to_one": True}, ["this model with 1 and True"]),
        ({"timestep_spacing": "trailing"}, ["this model as 'trailing'"]),
        ({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, ["v_prediction", "ddim"]),
    ],
)
def test_what_apples_pipeline_takes_for_granted(changed: dict[str, Any], clauses: list[str]) -> None:
    config = SD1 | changed
    found = differences(read_schedule(config), default_sampler(config))
    assert len(found) == len(clauses), found
    assert all(clause in said for clause, said in zip(clauses, found, strict=True)), found


def test_script_and_report_say_where_this_model_is_otherwise(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """As Stable Diffusion 2 in its larger size, which predicts v; of Stable Diffusion 1 they say nothing."""
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    edit_json(other / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    said = "takes what the UNet predicts for epsilon, this model predicts v_prediction"
    for model, different in ((tiny_checkpoint, False), (other, True)):
        folder = tmp_path / f"bundle {different}"
        draft = assembled(model, tiny_bundle, folder, "coreml")
        script = subprocess.run(["sh", folder / "coreml/compile_for_apple.sh"], capture_output=True, text=True)
        assert (said in script.stderr) == different and script.returncode
        for graph in draft.graphs["coreml"].values():
            for file in graph.files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()
        write_report(folder, Report(draft, [], [], read_golden(open_bundle(tiny_bundle)), {}, 1.0))
        assert (said in (folder / "report/report.html").read_text(encoding="utf-8")) == different
        numbers = json.loads((folder / "report/report.json").read_text())
        assert numbers["apple_differences"] == ([said] if different else [])
