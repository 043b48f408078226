"""A recipe that no file of the product knows: convolutions in int8, the rest in float16. It is exported, judged and
drawn with, by this file alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.sample_bundle import write_sample
from support.toys import registered

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize import recipes
from pocketdiffusion.quantize.floors import Floors
from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.recipes import recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme, Weight
from pocketdiffusion.quantize.stated_floors import floor_faults, own_floors
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden

# The recipe.

FLOORS = Floors(
    graphs={"text_encoder": 50.0, "unet": 30.0, "vae_decoder": 30.0, "vae_encoder": 30.0},
    pictures=(25.0, 20.0),
    evidence="of a test: nothing was measured",
)


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    return {name: Scheme("linear", 8) if weight.operator == "conv" else FLOAT16 for name, weight in weights.items()}


# What the product does with it.


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(recipes, "toy_conv8", f"from {__name__} import *\n", tmp_path_factory.mktemp("recipes")):
        yield


def test_it_is_listed() -> None:
    assert recipe_names()[-1] == "toy_conv8"


@pytest.mark.parametrize(("floor", "fault"), [(30.0, False), (29.0, True)])
def test_a_bundle_is_held_to_the_floors_that_it_states(floor: float, fault: bool, tmp_path: Path) -> None:
    draft = write_sample(tmp_path)
    fields = {"recipe": "toy_conv8", "storage": "mixed", "floor_db": floor, "picture_floors_db": (25.0, 20.0)}
    graphs = {**draft.graphs["onnx"], "unet": draft.graphs["onnx"]["unet"].model_copy(update=fields)}
    draft = draft.model_copy(update={"graphs": {"onnx": graphs}})
    said = [reason for _, reason in floor_faults(draft, has_proof=False)]
    assert said == (["graphs.unet.floor_db is 29, but the recipe toy_conv8 has 30"] if fault else [])
    assert own_floors(draft) == []


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "coreml", "tflite"])
def test_it_is_exported_judged_and_drawn_with(format: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    target = {"onnx": "generic", "coreml": "iphone-15", "tflite": "galaxy-s24"}[format]
    made = export(str(micro_checkpoint), target, tmp_path / "out", ExportOptions(format=format, recipe="toy_conv8"))
    bundle = open_bundle(made.folder)
    for part in components(open_checkpoint(str(micro_checkpoint))):
        graph, weights = bundle.manifest.graphs[format][part.spec.name], weights_of(part).values()
        convolutions = sum(weight.operator == "conv" for weight in weights)
        assert graph.recipe == "toy_conv8" and graph.floor_db == FLOORS.graphs[part.spec.name]
        assert graph.stored.get("int8", 0) == convolutions and sum(graph.stored.values()) == len(weights)
    verdicts, _ = judge(bundle, read_golden(bundle)[:1])
    assert all(verdict.passed for verdict in verdicts)
    assert {"quantized", "same weights", "toy_conv8"} <= {verdict.rung for verdict in bundle.manifest.verdicts}
    assert draw(bundle, "red apple", steps=2).shape == (8, 8, 3)
