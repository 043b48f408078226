"""Recipes: by name, by file, what formats refuse, what an export makes of them, and how a bad one is found out."""

import json
import sys
from collections.abc import Mapping
from math import floor
from pathlib import Path

import pytest
from support.command import call, refusal

from pocketdiffusion.export.backends.emission import find_refusal
from pocketdiffusion.export.checkpoints import open_checkpoint
from pocketdiffusion.export.families import components
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.quantize.recipes import (
    Floors,
    Recipe,
    floor_of,
    load_recipe,
    read_recipe,
    recipe_names,
    write_recipe,
)
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme, Weight
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.tolerances import PICTURE_FLOORS_DB

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from recipes import table  # noqa: E402

LOSSY = [name for name in recipe_names() if name not in ("fp32", "fp16", "mixed")]
TAKEN = ["fp32", "w8", *(kind.value for kind in Kind)]
TWO = {"unet": "int8", "vae_decoder": "dynamic"}
WEIGHTS = {
    "conv.weight": Weight((64, 32, 3, 3), "conv"),
    "to_q.weight": Weight((64, 64), "linear"),
    "tokens.weight": Weight((100, 64), "embedding"),
}


class Survey:
    """A convolution that costs much, a product that costs little."""

    component = "unet"

    def __init__(self, format: str, profile: str) -> None:
        self.format, self.profile = format, profile
        self.damages = {"conv.weight": 1e-2, "to_q.weight": 1e-5, "tokens.weight": 1e-4}

    def damage(self, scheme: Scheme) -> Mapping[str, float]:
        return self.damages


@pytest.mark.parametrize("name", LOSSY)
def test_a_recipe_decides_for_every_matrix_and_rests_on_evidence(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.floors is not None and "measured" in recipe.floors.evidence and len(recipe.floors.evidence) > 60
    assert set(recipe.floors.graphs) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert recipe.floors.pictures[0] >= recipe.floors.pictures[1] > 5
    schemes = recipe.plan(WEIGHTS, Survey("onnx", "ort"))
    assert schemes.keys() == WEIGHTS.keys() and schemes["tokens.weight"].activation == "float"
    assert all(scheme.bits == int(name.rpartition("palette")[2][0]) for scheme in schemes.values() if "palette" in name)


def test_what_costs_most_is_an_island_of_w8a8() -> None:
    """Of many: islands are a few."""
    many = {**WEIGHTS, **{f"blocks.{n}.weight": Weight((64, 64), "linear") for n in range(10)}}
    survey = Survey("onnx", "ort")
    survey.damages |= {name: 1e-5 for name in many if name.startswith("blocks")}
    schemes = load_recipe("w8a8").plan(many, survey)
    assert schemes.pop("conv.weight") == schemes.pop("tokens.weight") == Scheme("linear", 8)
    assert set(schemes.values()) == {Scheme("linear", 8, activation="int8")}


@pytest.mark.parametrize(
    ("format", "profile", "takes"),
    [
        ("onnx", "ort", {"w8", "w4", "w8a8", "dynamic8"}),
        ("onnx", "std", {"w8", "w4", "w8a8", "w8a16", "dynamic8"}),
        ("coreml", "ios16", {"w8", "palette8", "palette6", "palette4"}),
        ("coreml", "ios17", {"w8", "w8a8", "palette8", "palette6", "palette4"}),
        ("coreml", "ios18", {"w8", "w8a8", "w4", "palette8", "palette6", "palette4"}),
        ("tflite", "std", {"w8", "w8a8", "dynamic8"}),
    ],
)
def test_which_format_takes_which(format: str, profile: str, takes: set[str]) -> None:
    """What is refused has a reason, and the nearest recipe is one that is taken."""
    taken = set()
    for name in LOSSY:
        refused = find_refusal(load_recipe(name).plan(WEIGHTS, Survey(format, profile)).values(), format, profile)
        if refused is None:
            taken.add(name)
        else:
            assert len(refused.reason) > 20 and refused.nearest in takes, (name, refused)
    assert taken == takes


def test_a_recipe_is_kept_as_json(tmp_path: Path) -> None:
    floors = Floors({"unet": 30.0}, (25.0, 20.0), "measured on nothing")
    recipe = Recipe("mine", floors, {"unet": {"conv.weight": Scheme("palette", 6, 16), "to_q.weight": FLOAT16}})
    write_recipe(tmp_path / "mine.json", recipe)
    assert read_recipe(tmp_path / "mine.json") == recipe
    assert load_recipe(str(tmp_path / "mine.json")) == recipe
    two = {name: WEIGHTS[name] for name in ("conv.weight", "to_q.weight")}
    assert recipe.plan(two, Survey("coreml", "ios18")) == recipe.schemes["unet"]  # type: ignore[index]
    with pytest.raises(UserError, match="for another model: unet has the weight tokens.weight"):
        recipe.plan(WEIGHTS, Survey("coreml", "ios18"))
    with pytest.raises(UserError, match="for another model: unet has no weight to_q.weight"):
        recipe.plan({"conv.weight": WEIGHTS["conv.weight"]}, Survey("coreml", "ios18"))


def json_file(file: Path, change: Mapping[str, object] = {}, floors: Mapping[str, object] = {}) -> Path:
    """A recipe of two weights as a JSON file, with some fields changed."""
    graphs = {"unet": 30, "vae_decoder": 30.5}
    schemes = {"unet": {"a": {"kind": "linear", "bits": 8}}, "vae_decoder": {"a": {"kind": "float", "bits": 16}}}
    all_floors = {"graphs": graphs, "pictures": [25, 20], "evidence": "measured", **floors}
    file.write_text(json.dumps({"name": "mine", "floors": all_floors, "schemes": schemes, **change}))
    return file


def test_a_json_file_by_hand(tmp_path: Path) -> None:
    """The searched ones' name, the lowest floors that are shipped, an ending in capitals, a mark that editors leave."""
    found = load_recipe(str(json_file(tmp_path / "R.JSON", {"name": "mixed"}, {"pictures": [15, 7.0]})))
    assert found.floors is not None and found.floors.pictures == (15.0, 7.0)
    assert found.name == "mixed" and found.schemes is not None and found.schemes["unet"] == {"a": Scheme("linear", 8)}
    (tmp_path / "R.JSON").write_text((tmp_path / "R.JSON").read_text(), encoding="utf-8-sig")
    assert load_recipe(str(tmp_path / "R.JSON")) == found


def weight(**fields: object) -> dict[str, object]:
    return {"schemes": {"unet": {"a": {"kind": "linear", "bits": 8} | fields}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"floors": None}, "floors as None, .*see one that search wrote"),
        ({"schemes": []}, "schemes as \\[\\]"),
        ({"schemes": {"unet": 3}}, "schemes.unet as 3"),
        ({"schemes": {"unet": {"a": "int8"}}}, "unet.a as 'int8'"),
        ({"schemes": {"text_encoder": {}}}, "lacks floors.graphs.text_encoder"),
        (weight(bits=9), "unet.a as linear of 9 bits"),
        (weight(bits=8.0), "unet.a as linear of 8.0 bits"),
        (weight(bits=True, kind="palette"), "unet.a as palette of True bits"),
        (weight(kind="palette", bits=5), "unet.a as palette of 5 bits"),
        (weight(kind=["linear"]), "unet.a as .* of 8 bits"),
        (weight(activation="int4"), "unet.a with activation int4"),
        (weight(group=16.0), "unet.a .*group 16.0"),
        (weight(group=float("nan")), "unet.a .*group nan"),
        (weight(group=-1), "unet.a .*group -1"),
        (weight(colour=1), "unet.a.*colour"),
        (
            {"schemes": {c: {"a": {"kind": "linear", "bits": 8, "activation": x}} for c, x in TWO.items()}},
            "activation dynamic and int8",
        ),
        *(({"name": name}, f"name {name}, which is taken") for name in TAKEN),
        ({"name": None}, "name None"),
        ({"name": "two\nlines"}, "name 'two"),
        ({"name": " "}, "name ' '"),
    ],
)
def test_a_json_file_that_is_no_recipe(change: dict[str, object], said: str, tmp_path: Path) -> None:
    file = json_file(tmp_path / "mine.json", change)
    with pytest.raises(UserError, match=f"the recipe {file} .*{said}"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    "db",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        -1e9,
        0,
        5.9,
        1e9,
        pytest.param(10**400, id="400 digits"),
        True,
        "30",
        None,
    ],
)
def test_a_floor_that_is_none(db: object, tmp_path: Path) -> None:
    for where, floors in (
        ("graphs.unet", {"graphs": {"unet": db, "vae_decoder": 30}}),
        ("pictures", {"pictures": [25, db]}),
        ("pictures", {"pictures": db}),
    ):
        with pytest.raises(UserError, match=f"mine.json has floors.{where} as "):
            read_recipe(json_file(tmp_path / "mine.json", floors=floors))
    with pytest.raises(UserError, match="floors.evidence as 3"):
        read_recipe(json_file(tmp_path / "mine.json", floors={"evidence": 3}))


def test_a_file_of_nothing_but_brackets(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    for depth in (100_000, 900):
        file.write_text("[" * depth + "]" * depth)
        with pytest.raises(UserError, match="the recipe .*deep.json"):
            read_recipe(file)


def test_mistakes_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def export(*options: str | Path) -> str:
        return refusal("export", tiny_checkpoint, "--target", "pixel-8", "-o", tmp_path / "out", *options)

    assert "there is no recipe w9: did you mean" in export("--recipe", "w9")
    assert "cannot read the recipe" in export("--recipe", tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    assert "is no JSON" in export("--recipe", tmp_path / "bad.json")
    floors = {"pictures": [float("nan"), 20]}
    assert "floors.pictures as nan" in export("--recipe", json_file(tmp_path / "nan.json", floors=floors))
    said = export("--recipe", "palette6")
    assert "onnx ort does not take the recipe palette6" in said and "the nearest is w8" in said
    assert not (tmp_path / "out").exists()


def test_a_graph_of_another_name_has_the_floor_of_its_stage() -> None:
    recipe = load_recipe("w8")
    assert recipe.floors is not None
    assert floor_of(recipe, "text_encoder_2", "encode_prompt") == recipe.floors.graphs["text_encoder"]
    assert floor_of(recipe, "unet", "denoise") == recipe.floors.graphs["unet"]
    with pytest.raises(UserError, match="w8 has no floor for upscaler"):
        floor_of(recipe, "upscaler", "upscale")


@pytest.mark.slow
def test_an_export_with_a_recipe(micro_checkpoint: Path, tmp_path: Path) -> None:
    """Its verdicts: what the recipe costs, that the artifact has the very weights, and the artifact by its floors."""
    out = tmp_path / "out"
    done = call("export", micro_checkpoint, "--target", "pixel-8", "--recipe", "w8", "-o", out)
    assert done.returncode == 0, done.stderr
    manifest = open_bundle(out).manifest
    unet = manifest.graphs["onnx"]["unet"]
    floors = load_recipe("w8").floors
    assert floors is not None and (unet.recipe, unet.storage, unet.arithmetic) == ("w8", "int8", "float32")
    assert unet.floor_db == floors.graphs["unet"] and unet.picture_floors_db == floors.pictures
    (part,) = [part for part in components(open_checkpoint(str(micro_checkpoint))) if part.spec.name == "unet"]
    assert unet.stored == {"int8": len(weights_of(part))} and manifest.calibration is None
    found = {v.rung: v for v in manifest.verdicts if v.subject == "unet.out_sample"}
    assert {"rewrites", "fp32", "quantized", "same weights", "w8"} == set(found)
    assert found["same weights"].floor_db == 105 and found["w8"].floor_db == found["quantized"].floor_db
    assert abs(found["w8"].psnr_db - found["quantized"].psnr_db) < 1
    pictures = [v for v in manifest.verdicts if v.rung == "pictures"]
    assert [(v.floor_db, v.storage) for v in pictures] == [(floor, "int8") for floor in floors.pictures]
    assert call("verify", out).returncode == 0


@pytest.mark.slow
def test_two_bits_in_one_attention_layer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The export fails and is kept as failed; compare names that layer first, from the first step on."""
    layer = "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v"
    schemes = {
        part.spec.name: {name: Scheme("linear", 2 if name == f"{layer}.weight" else 8) for name in weights_of(part)}
        for part in components(open_checkpoint(str(tiny_checkpoint)))
    }
    floors = load_recipe("w8").floors
    assert floors is not None
    write_recipe(tmp_path / "bad.json", Recipe("bad", floors, schemes))
    out = tmp_path / "out"
    done = call("export", tiny_checkpoint, "--target", "pixel-8", "--recipe", tmp_path / "bad.json", "-o", out)
    assert done.returncode == 1 and "unet.out_sample" in done.stderr and "kept as" in done.stderr
    failed = tmp_path / "out.failed"
    assert not out.exists() and open_unproven(failed).manifest.graphs["onnx"]["unet"].storage == "mixed"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n")
    page = tmp_path / "report.html"
    shown = call("compare", tiny_checkpoint, failed, "--prompts", prompts, "--steps", "2", "-o", page)
    assert shown.returncode == 0 and f"first above 10%: unet {layer}, step 1" in shown.stdout
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert max(numbers["layers"], key=lambda found: found["added"])["module"] == layer
    assert layer in page.read_text() and "quantized" in {rung["name"] for rung in numbers["ladder"]}


@pytest.mark.parametrize("name", LOSSY)
def test_floors_are_what_was_measured_with_a_margin(name: str) -> None:
    """By benchmarks/recipes.py, of all formats the least: 15 dB below, pictures 6 dB. None is above that of fp16."""
    measured = json.loads((Path(__file__).parents[1] / "benchmarks/recipes.json").read_text())
    rows = [row for row in measured if row["recipe"] == name and "refused" not in row]
    floors = load_recipe(name).floors
    assert rows and floors is not None
    for graph, floor_db in floors.graphs.items():
        assert floor_db == floor(min(58, min(row["graph_db"][graph]["minimum"] for row in rows) - 15))
    for which, most, floor_db in zip(("median", "minimum"), PICTURE_FLOORS_DB["float16"], floors.pictures, strict=True):
        reached = min(row["psnr_db"][which] for row in rows) - 6
        assert floor_db == floor(min(most, reached)) and (reached < most or "float16's own" in floors.evidence)


def test_the_readme_has_the_table_as_measured() -> None:
    root = Path(__file__).parents[1]
    rows = json.loads((root / "benchmarks/recipes.json").read_text())
    shown = (root / "README.md").read_text().split("<!-- recipes -->\n")[1].split("\n<!-- /recipes -->")[0]
    assert shown.splitlines() == list(table(rows))
    measured = {(row["format"], row["recipe"]) for row in rows}
    assert {(format, name) for format in ("onnx", "coreml", "tflite") for name in LOSSY} <= measured
