"""A UNet as several graphs: each weight once, parts of equal weight, the original's own tensors where it is cut, and
bundles that draw what the whole UNet draws."""

import json
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command import call, refusal
from support.family_cases import CASES, MICRO, Case, Model, write_checkpoint
from support.faults import Fault, inject
from support.onnx_faults import dropped_channel, one_weight, scaled_input, scaled_output
from support.sdxl import write_sdxl
from test_weight_rescaling import inputs_of, louder, outputs

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions, choose
from pocketdiffusion.compare import compare_two
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.float16 import weight_rescaling
from pocketdiffusion.export.float16.scale_propagation import follow
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.planning import check_recipes
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.export.trace import trace
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.program import DENOISE, graphs_of, text_to_image
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.metrics import image_psnr_db, psnr_db
from pocketdiffusion.verify import Model as Against
from pocketdiffusion.verify import verify

REWRITES = ("fused_attention", "quick_gelu")
EQUAL = 1.15  # the largest part of the small models, in weights, at most this many times their mean


def opened(folder: Path, count: int, size: tuple[int, int] | None = None) -> dict[str, Component]:
    width, height = size or (None, None)
    checkpoint = open_checkpoint(str(folder))
    return {p.spec.name: p for p in components(checkpoint, width=width, height=height, split_unet=count)}


def pieces(parts: dict[str, Component]) -> list[Component]:
    return [part for part in parts.values() if part.part_of is not None]


def run_in_order(parts: list[Component], given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors by name, after the parts in their order."""
    values = dict(given)
    with torch.no_grad():
        for part in parts:
            made = load_module(part)(*(values[tensor.name] for tensor in part.spec.inputs))
            for tensor, value in zip(part.spec.outputs, made, strict=True):
                assert tuple(value.shape) == tensor.shape and tensor.name not in values
                values[tensor.name] = value
    return values


def check_parts(folder: Path, count: int, size: tuple[int, int] | None = None) -> list[Component]:
    """Check that the parts compute what the whole computes, bit for bit, and share its weights and sites out."""
    whole, parts = opened(folder, 1, size)["unet"], pieces(opened(folder, count, size))
    assert [part.spec.name for part in parts] == [f"unet_{number}" for number in range(1, count + 1)]
    assert Counter(name for part in parts for name in part.weights) == Counter(list(whole.weights))
    assert sum((Counter(part.sites) for part in parts), Counter()) == Counter(whole.sites)
    given = whole.example(3)
    with torch.no_grad():
        (expected,) = load_module(whole)(*given.values())
    assert torch.equal(run_in_order(parts, given)["out_sample"], expected)
    return parts


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_parts_compute_what_the_whole_computes(case: Case, make: Callable[[Case], Model]) -> None:
    folder = make(case).folder
    for count in (2, 3):
        check_parts(folder, count, case.size)


def test_parts_of_xl_compute_what_the_whole_computes(tmp_path: Path) -> None:
    """The conditions of prompt and size are read by the first part only."""
    for count in (2, 4):
        parts = check_parts(write_sdxl(tmp_path / str(count)), count)
        names = [{tensor.name for tensor in part.spec.inputs} for part in parts]
        assert {"text_embeds", "time_ids", "timestep"} <= names[0]
        assert all(each.isdisjoint({"text_embeds", "time_ids", "timestep", "sample"}) for each in names[1:])


def test_parts_have_equal_weight(make: Callable[[Case], Model]) -> None:
    """Of a UNet with Stable Diffusion 1.5's blocks; the size of its tensors decides among nearly equal cuts."""
    folder = make(CASES["four blocks, two layers, as SD1.5"]).folder
    for count in (2, 3, 4):
        weights = [sum(prod(ref.shape) for ref in part.weights.values()) for part in pieces(opened(folder, count))]
        assert max(weights) <= EQUAL * sum(weights) / count, weights


def test_as_many_parts_as_blocks(micro_checkpoint: Path) -> None:
    """The first has no prompt: both halves of guidance share its call."""
    with pytest.raises(UserError, match=r"unet cannot be split into 99 parts: it has (\d+) blocks") as refused:
        opened(micro_checkpoint, 99)
    count = int(str(refused.value).split("it has ")[1].split()[0])
    parts = opened(micro_checkpoint, count)
    check_parts(micro_checkpoint, count)
    assert not parts["unet_1"].halved and parts[f"unet_{count}"].halved and "\n" not in str(refused.value)
    trajectory = recorded(micro_checkpoint, parts)
    assert {case.half for case in trajectory.calls["unet_1"]} == {""}


def recorded(folder: Path, parts: dict[str, Component]) -> Any:
    request = Request("red apple", "grey", seed=1, steps=2, guidance=5.0)
    (trajectory,) = record(open_checkpoint(str(folder)), list(parts.values()), [request])
    return trajectory


def test_what_crosses_is_recorded_inside_of_diffusers(tiny_checkpoint: Path) -> None:
    """The parts are recorded as the whole is, and a tensor is the same where it is made and where it is read."""
    parts = opened(tiny_checkpoint, 3)
    trajectory, whole = recorded(tiny_checkpoint, parts), recorded(tiny_checkpoint, opened(tiny_checkpoint, 1))
    assert set(trajectory.calls) == set(parts) and "unet" not in trajectory.calls
    made: dict[tuple[str, Any, str], Any] = {}
    for part in pieces(parts):
        runner, calls = open_rewritten(part, REWRITES), trajectory.calls[part.spec.name]
        assert [(c.half, c.step) for c in calls] == [(c.half, c.step) for c in whole.calls["unet"]]
        for case in calls:
            for name, value in case.inputs.items():
                assert np.array_equal(made.get((case.half, case.step, name), value), value)
            for name, value in runner(case.inputs).items():
                made[case.half, case.step, name] = case.outputs[name]
                assert psnr_db(case.outputs[name], value, np.abs(case.outputs[name]).max()) > 105, name
    for case in whole.calls["unet"]:
        assert np.array_equal(made[case.half, case.step, "out_sample"], case.outputs["out_sample"])


def test_the_batch_of_each_part_is_open(tiny_checkpoint: Path) -> None:
    for part in pieces(opened(tiny_checkpoint, 2)):
        trace(part, REWRITES, open_batch=True)


@pytest.mark.parametrize("number", [1, 2])
def test_rescaling_keeps_the_scale_of_what_crosses(number: int, tiny_checkpoint: Path) -> None:
    """Though every norm of the part is rescaled that reads none of it."""
    part = opened(tiny_checkpoint, 2)[f"unet_{number}"]
    found = weight_rescaling._plan(louder(follow(part, REWRITES, [inputs_of(part)]), 2.0**9))
    assert found.weights and found.epsilons
    for before, after in zip(outputs(part), outputs(weight_rescaling.rescale(part, found)), strict=True):
        assert torch.equal(before, after)


def test_too_many_parts_are_refused_in_one_line(micro_checkpoint: Path, tmp_path: Path) -> None:
    """A number below 1 is refused before torch is imported: test_cli_at_once.py."""
    command = ("export", micro_checkpoint, "--target", "generic", "-o", tmp_path / "out", "--split-unet")
    assert "unet cannot be split into 40 parts: it has" in refusal(*command, "40")
    assert refusal(*command, "-1") == "--split-unet -1 is not a number of parts: give 1 or more"
    assert not (tmp_path / "out").exists()


def test_a_target_can_state_the_number(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "export/targets/generic.toml").read_text()
    (tmp_path / "two.toml").write_text(f"split_unet = 2\n{text}")
    assert load_target("two", tmp_path).split_unet == 2
    for wrong, reason in (("0", "is 0, and must be 1 or more"), ('"2"', "must be of type int, not str")):
        (tmp_path / "two.toml").write_text(f"split_unet = {wrong}\n{text}")
        with pytest.raises(UserError, match=rf"two.toml: split_unet {reason}"):
            load_target("two", tmp_path)


# Bundles.

TARGETS = {"onnx": "generic", "tflite": "galaxy-s24", "coreml": "iphone-15"}
Export = Callable[[str, int], Bundle]


@pytest.fixture(scope="module")
def micro(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("split") / "model", MICRO).folder


@pytest.fixture(scope="module")
def exported(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Bundles in float32 by format and number of parts, each exported once."""
    found: dict[tuple[str, int], Bundle] = {}

    def get(format: str, count: int) -> Bundle:
        if (format, count) not in found:
            out = tmp_path_factory.mktemp("split") / f"{format}_{count}"
            export(
                str(micro),
                TARGETS[format],
                out,
                ExportOptions(format=format, recipe="fp32", split_unet=count, proof="quick"),
            )
            found[format, count] = open_bundle(out)
        return found[format, count]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("format", TARGETS)
def test_a_split_bundle_draws_what_the_whole_draws(format: str, exported: Export) -> None:
    whole, split = exported(format, 1), exported(format, 2)
    assert set(split.manifest.graphs[format]) == {"text_encoder", "unet_1", "unet_2", "vae_decoder", "vae_encoder"}
    assert graphs_of(text_to_image(split.manifest.program)[DENOISE]) == ["unet_1", "unet_2"]
    assert not list((split.folder / format).glob("*.json")) and not list((split.folder / format).glob("*.sh"))
    given: dict[str, Any] = {"negative_prompt": "grey", "seed": 7, "steps": 4, "guidance": 5.0}
    expected = draw(whole, "red apple", **given)
    assert image_psnr_db(expected, draw(split, "red apple", **given)) > 60
    alone = given | {"guidance": 1.0}
    assert image_psnr_db(draw(whole, "red apple", **alone), draw(split, "red apple", **alone)) > 60
    photo = np.random.default_rng(0).integers(0, 256, expected.shape, dtype=np.uint8)
    redrawn = [draw(each, "red apple", image=photo, strength=0.7, **given) for each in (whole, split)]
    assert image_psnr_db(*redrawn) > 60
    if format == "onnx":  # whose batch is open: both halves in one call, or in two
        assert image_psnr_db(expected, draw(split, "red apple", batched=False, **given)) > 60


@pytest.mark.slow
def test_each_part_is_proved(exported: Export) -> None:
    rungs = {(v.subject, v.rung) for v in exported("onnx", 2).manifest.verdicts}
    outputs = [f"{name}.{t.name}" for name in ("unet_1", "unet_2") for t in spec_of(exported("onnx", 2), name).outputs]
    assert len(outputs) > 3 and {(each, rung) for each in outputs for rung in ("rewrites", "fp32")} <= rungs


def spec_of(bundle: Bundle, graph: str) -> Any:
    return bundle.manifest.graphs["onnx"][graph].spec


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "blamed"),
    [
        (one_weight("unet_2", "unet.conv_out.weight", float("nan")), {"unet_2.out_sample"}),
        (dropped_channel("unet_2", "unet.conv_out.weight"), {"unet_2.out_sample"}),
        (scaled_input("unet_2", "time_embedding", 1.01), {"unet_2.out_sample"}),
        (scaled_output("unet_1", "time_embedding", 1.001), {"unet_1.time_embedding"}),
    ],
)
def test_a_fault_in_a_part_is_blamed_on_it(fault: Fault, blamed: set[str], exported: Export, tmp_path: Path) -> None:
    faulty = inject(exported("onnx", 2), fault, tmp_path / "faulty")
    verdicts, _ = judge(faulty, read_golden(faulty)[:1])
    assert {v.subject for v in verdicts if not v.passed and v.rung != "pictures"} == blamed


@pytest.mark.slow
def test_the_original_is_split_as_the_bundle_is(exported: Export, micro: Path) -> None:
    split, whole = exported("onnx", 2), exported("onnx", 1)
    found = verify(split.folder, against=Against(str(micro)))
    assert all(v.passed for v in found.verdicts) and {"unet_1.time_embedding"} < {v.subject for v in found.verdicts}
    given: Any = {"prompts": ["red apple"], "seed": 0, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    given |= {"revision": None, "token": None, "progress": lambda line: None}
    assert compare_two(str(micro), str(split.folder), **given).difference.lowest_db > 60
    with pytest.raises(UserError, match="unet_1, unet_2.*only models with the same graphs can be compared"):
        compare_two(str(whole.folder), str(split.folder), **given)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "recipe"), [("generic", "w8"), ("iphone-15", "palette6"), ("galaxy-s24", "fp16")])
def test_recipes_of_the_built_in_model(target: str, recipe: str, tmp_path: Path) -> None:
    """The floors are those of the whole UNet: each part reaches them."""
    format = {"generic": "onnx", "iphone-15": "coreml", "galaxy-s24": "tflite"}[target]
    bundle = export(
        "emoji", target, tmp_path / "out", ExportOptions(format=format, recipe=recipe, split_unet=2, proof="quick")
    )
    sizes = [bundle.manifest.graphs[format][name].parameters for name in ("unet_1", "unet_2")]
    assert max(sizes) <= EQUAL * sum(sizes) / 2


@pytest.mark.slow
def test_integers_are_calibrated_in_each_part(micro: Path, tmp_path: Path) -> None:
    bundle = export(
        str(micro),
        "generic",
        tmp_path / "out",
        ExportOptions(format="onnx", recipe="w8a8", split_unet=2, proof="quick"),
    )
    assert {bundle.manifest.graphs["onnx"][name].arithmetic for name in ("unet_1", "unet_2")} == {"int8"}


@pytest.mark.slow
def test_a_split_xl_draws_what_the_whole_draws(tmp_path: Path) -> None:
    folder = write_sdxl(tmp_path / "model")
    options: dict[str, Any] = {"format": "onnx", "recipe": "fp32"}
    whole, split = (
        export(str(folder), "generic", tmp_path / str(count), ExportOptions(split_unet=count, proof="quick", **options))
        for count in (1, 3)
    )
    given: dict[str, Any] = {"negative_prompt": None, "seed": 7, "steps": 4, "guidance": 5.0}
    expected = draw(whole, "a red apple!", **given)
    for batched in (True, False):
        assert image_psnr_db(expected, draw(split, "a red apple!", batched=batched, **given)) > 60


@pytest.mark.slow
def test_a_mixed_recipe_is_searched_for_the_parts(micro: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "my.json"
    done = call(
        "search", str(micro), "--target", "generic", "--format", "onnx", "--split-unet", "2", "--min-median-psnr", "40",
        "-o", recipe,
    )  # fmt: skip
    assert done.returncode == 0 and "--split-unet 2" in done.stdout, done.stderr
    assert {"unet_1", "unet_2"} < set(json.loads(recipe.read_text())["schemes"])
    artifacts = choose(load_target("generic"), str(recipe), "onnx", None).artifacts
    check_recipes(list(opened(micro, 2).values()), artifacts)
    with pytest.raises(UserError, match="the recipe is for another model: unet has the weight"):
        check_recipes(list(opened(micro, 1).values()), artifacts)
