"""Recipes: by name, by file, what formats refuse, what an export makes of them, and how a bad one is found out."""

import json
import sys
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import pytest
from support.command import call, refusal

from pocketdiffusion.export.backends.emission import find_refusal
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize import recipes
from pocketdiffusion.quantize.floors import FILE, Floors, floor_of
from pocketdiffusion.quantize.plans import make_plan
from pocketdiffusion.quantize.qparams import Ranges
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.recipe_file import write_recipe
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Scheme, Weight
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.tolerances import PICTURE_FLOORS_DB

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import floors as floors_benchmark  # noqa: E402
from recipe_tables import DOCUMENT, fill  # noqa: E402

LOSSY = [name for name in recipe_names() if name not in ("fp32", "fp16", "mixed")]
TAKEN = ["fp32", "w8", *(kind.value for kind in Kind)]
TWO = {"unet": "int8", "vae_decoder": "dynamic"}
WEIGHTS = {
    "conv.weight": Weight((64, 32, 3, 3), "conv"),
    "to_q.weight": Weight((64, 64), "linear"),
    "tokens.weight": Weight((100, 64), "embedding"),
}


class Analysis:
    """A convolution that is sensitive, a product that is not."""

    component = "unet"

    def __init__(self, format: str, profile: str) -> None:
        self.format, self.profile = format, profile
        self.found = {"conv.weight": 1e-2, "to_q.weight": 1e-5, "tokens.weight": 1e-4}

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        return self.found


@pytest.mark.parametrize("name", LOSSY)
def test_a_recipe_decides_for_every_matrix_and_rests_on_evidence(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.floors is not None and "measured" in recipe.floors.evidence and len(recipe.floors.evidence) > 60
    assert set(recipe.floors.graphs) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert recipe.floors.pictures[0] >= recipe.floors.pictures[1] > 5
    schemes = recipe.plan(WEIGHTS, Analysis("onnx", "ort"))
    assert schemes.keys() == WEIGHTS.keys() and schemes["tokens.weight"].activation == "float"
    assert all(scheme.bits == int(name.rpartition("palette")[2][0]) for scheme in schemes.values() if "palette" in name)


def test_what_costs_most_is_an_island_of_w8a8() -> None:
    """Of many: islands are a few."""
    many = {**WEIGHTS, **{f"blocks.{n}.weight": Weight((64, 64), "linear") for n in range(10)}}
    analysis = Analysis("onnx", "ort")
    analysis.found |= {name: 1e-5 for name in many if name.startswith("blocks")}
    schemes = load_recipe("w8a8").plan(many, analysis)
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
        refused = find_refusal(load_recipe(name).plan(WEIGHTS, Analysis(format, profile)).values(), format, profile)
        if refused is None:
            taken.add(name)
        else:
            assert len(refused.reason) > 20 and refused.nearest in takes, (name, refused)
    assert taken == takes


def test_a_recipe_is_kept_as_json(tmp_path: Path) -> None:
    floors = Floors({"unet": 30.0}, (25.0, 20.0), "measured on nothing")
    recipe = Recipe("mine", floors, {"unet": {"conv.weight": Scheme("palette", 6, 16), "to_q.weight": FLOAT16}})
    write_recipe(tmp_path / "mine.json", recipe)
    assert load_recipe(str(tmp_path / "mine.json")) == recipe
    assert load_recipe(str(tmp_path / "mine.json")) == recipe
    two = {name: WEIGHTS[name] for name in ("conv.weight", "to_q.weight")}
    assert recipe.plan(two, Analysis("coreml", "ios18")) == recipe.schemes["unet"]  # type: ignore[index]
    with pytest.raises(UserError, match="for another model: unet has the weight tokens.weight"):
        recipe.plan(WEIGHTS, Analysis("coreml", "ios18"))
    with pytest.raises(UserError, match="for another model: unet has no weight to_q.weight"):
        recipe.plan({"conv.weight": WEIGHTS["conv.weight"]}, Analysis("coreml", "ios18"))


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
        (
            {"floors": None},
            "floors is None: it should be an object; compare it with a file that `pocketdiffusion search` wrote",
        ),
        ({"schemes": []}, "schemes is \\[\\]: it should be an object"),
        ({"schemes": {"unet": 3}}, "schemes.unet is 3: it should be an object"),
        ({"schemes": {"unet": {"a": "int8"}}}, "schemes.unet.a is 'int8': it should be an object"),
        ({"schemes": {"text_encoder": {}}}, "floors.graphs.text_encoder is missing"),
        (weight(bits=9), "schemes.unet.a: linear of 9 bits does not exist: bits can be 2, 3, 4, 5, 6, 7, 8"),
        (weight(bits=8.0), "schemes.unet.a.bits is 8.0: it should be an integer"),
        (weight(bits=True, kind="palette"), "schemes.unet.a.bits is True: it should be an integer"),
        (weight(kind="palette", bits=5), "schemes.unet.a: palette of 5 bits does not exist: .* 1, 2, 3, 4, 6, 8"),
        (weight(kind=["linear"]), "schemes.unet.a.kind is .*'float', 'linear' or 'palette'"),
        (weight(kind="liner"), "schemes.unet.a.kind is 'liner': .*; did you mean linear?"),
        (
            weight(activation="int4"),
            "schemes.unet.a.activation is 'int4': .* 'int8', 'int16' or 'dynamic'; did you mean",
        ),
        (weight(group=16.0), "schemes.unet.a.group is 16.0: it should be an integer"),
        (weight(group=float("nan")), "schemes.unet.a.group is nan"),
        (weight(group=-1), "schemes.unet.a.group is -1: it should be 0 or more"),
        (weight(colour=1), "schemes.unet.a.colour is not known"),
        (weight(activaton="int8"), "schemes.unet.a.activaton is not known; did you mean activation?"),
        (
            {"schemes": {c: {"a": {"kind": "linear", "bits": 8, "activation": x}} for c, x in TWO.items()}},
            "activation is dynamic and int8: use one kind of activation besides float",
        ),
        *(({"name": name}, f"name is '{name}', which is taken") for name in TAKEN),
        ({"name": None}, "name is None: it should be text"),
        ({"name": "two\nlines"}, "name is 'two"),
        ({"name": " "}, "name is ' '"),
    ],
)
def test_a_json_file_that_is_no_recipe(change: dict[str, object], said: str, tmp_path: Path) -> None:
    file = json_file(tmp_path / "mine.json", change)
    with pytest.raises(UserError, match=f"the recipe {file} is not valid: {said}"):
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
        ("pictures.1", {"pictures": [25, db]}),
        ("pictures", {"pictures": db}),
    ):
        with pytest.raises(UserError, match=f"mine.json is not valid: floors.{where} is .*: it should be "):
            load_recipe(str(json_file(tmp_path / "mine.json", floors=floors)))
    with pytest.raises(UserError, match="floors.evidence is 3: it should be text"):
        load_recipe(str(json_file(tmp_path / "mine.json", floors={"evidence": 3})))


def test_a_file_of_nothing_but_brackets(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    for depth in (100_000, 900):
        file.write_text("[" * depth + "]" * depth)
        with pytest.raises(UserError, match="the recipe .*deep.json"):
            load_recipe(str(file))


def test_mistakes_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def export(*options: str | Path) -> str:
        return refusal("export", tiny_checkpoint, "--target", "pixel-8", "-o", tmp_path / "out", *options)

    assert "there is no recipe w9: did you mean" in export("--recipe", "w9")
    assert "cannot read the recipe" in export("--recipe", tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    assert "is not valid JSON" in export("--recipe", tmp_path / "bad.json")
    floors = {"pictures": [float("nan"), 20]}
    assert "floors.pictures.0 is nan: it should be" in export(
        "--recipe", json_file(tmp_path / "nan.json", floors=floors)
    )
    said = export("--recipe", "palette6")
    assert "onnx ort cannot use the recipe palette6" in said and "the nearest is w8" in said
    assert not (tmp_path / "out").exists()


def test_a_graph_of_another_name_has_the_floor_of_its_stage() -> None:
    recipe = load_recipe("w8")
    assert recipe.floors is not None
    assert floor_of("w8", recipe.floors, "text_encoder_2", "encode_prompt") == recipe.floors.graphs["text_encoder"]
    assert floor_of("w8", recipe.floors, "unet", "denoise") == recipe.floors.graphs["unet"]
    with pytest.raises(UserError, match="w8 has no floor for upscaler"):
        floor_of("w8", recipe.floors, "upscaler", "upscale")


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
    assert done.returncode == 1 and "unet.out_sample" in done.stderr and "The failed bundle is" in done.stderr
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


def measured_rows() -> Any:
    return json.loads((Path(__file__).parents[1] / "benchmarks/recipes.json").read_text())


def test_floors_are_what_the_generator_makes_of_the_measurements() -> None:
    assert FILE.read_text() == floors_benchmark.encode(measured_rows())
    assert LOSSY == list(json.loads(FILE.read_text())["recipes"])


def test_a_worse_measurement_lowers_a_floor() -> None:
    """By as much, in the graph that it was measured on alone."""
    rows = [row for row in measured_rows() if row["recipe"] == "w8" and "refused" not in row]
    before = floors_benchmark.floors_from(rows)["graphs"]
    rows[1]["graph_db"]["unet"]["minimum"] -= 3
    assert floors_benchmark.floors_from(rows)["graphs"] == {**before, "unet": before["unet"] - 3}


def test_the_document_has_recipes_floors_and_measurements() -> None:
    rows, text = measured_rows(), DOCUMENT.read_text()
    assert text == fill(text, rows)
    assert all(f"| `{name}` |" in text for name in recipe_names())
    measured = {(row["format"], row["recipe"]) for row in rows}
    assert {(format, name) for format in ("onnx", "coreml", "tflite") for name in LOSSY} <= measured


TOY = """
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32

def plan(weights, analysis):
    return {name: FLOAT16 if weight.operator == "conv" else FLOAT32 for name, weight in weights.items()}
"""


def test_a_recipe_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed, loaded, planned and lowered; one with a typo is refused by its name."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path)])
    assert recipe_names()[-1] == "toy"
    analysis = Analysis("onnx", "ort")
    plan = make_plan(load_recipe("toy"), WEIGHTS, analysis, lambda component, bits: Ranges({}, {}), "denoise")
    assert plan.storage == "float16" and plan.schemes["to_q.weight"] == FLOAT32 and plan.floor_db is None
    assert find_refusal(plan.schemes.values(), "onnx", "ort") is None
    with pytest.raises(UserError, match="no recipe tooy: did you mean toy"):
        load_recipe("tooy")
