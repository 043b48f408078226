"""The best recipe of every size, against all recipes there are; and the whole search, on a tiny model."""

import itertools
import json
import random
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.analysis_here import analyse_here
from support.command import call
from support.targets import only
from test_recipes import Analysis

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.quantization import analysis_key
from pocketdiffusion.export.reference.prompt_cut import find_cuts
from pocketdiffusion.export.reference.record import REQUESTS
from pocketdiffusion.files import read_prompts
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.quantize.floors import LEAST_DB, Floors
from pocketdiffusion.quantize.measure.cache import open_table
from pocketdiffusion.quantize.mixed_precision.knapsack import (
    Item,
    Option,
    solve,
    total_bytes,
    total_error,
)
from pocketdiffusion.quantize.mixed_precision.search import Search, open_search
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.recipe_file import write_recipe
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.search import PROMPTS, search, search_requests

BITS = (2, 4, 6, 8)


def candidates(format: str, profile: str) -> tuple[Scheme, ...]:
    return find_backend(format).search_storages(profile)


def synthetic(seed: int, weights: int, unit: int = 1) -> dict[Item, list[Option]]:
    """Weights of random sizes, whose errors fall with the bits, mostly."""
    rng = random.Random(seed)
    found: dict[Item, list[Option]] = {}
    for number in range(weights):
        size, worth = rng.randint(1, 30) * unit, 10 ** rng.uniform(-4, 0)
        found["unet", f"w{number}"] = [
            Option(Scheme("palette", bits), size * bits, worth * rng.uniform(0.5, 1.5) * 4.0**-bits) for bits in BITS
        ]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_better_at_any_size(seed: int) -> None:
    options = synthetic(seed, 5)
    frontier = solve(options)
    everything = [
        (sum(o.nbytes for o in plan), sum(o.error for o in plan)) for plan in itertools.product(*options.values())
    ]
    smallest = min(size for size, _ in everything)
    for budget in range(smallest, max(size for size, _ in everything) + 2):
        plan = frontier.within(budget)
        assert plan is not None and list(plan) == list(options)
        assert total_bytes(plan) <= budget
        assert total_error(plan) == pytest.approx(min(error for size, error in everything if size <= budget))
    assert frontier.within(smallest - 1) is None


@pytest.mark.parametrize("seed", range(4))
def test_nothing_smaller_has_so_small_an_error(seed: int) -> None:
    options = synthetic(seed, 5)
    frontier = solve(options)
    everything = [
        (sum(o.nbytes for o in plan), sum(o.error for o in plan)) for plan in itertools.product(*options.values())
    ]
    for _, wanted in everything[::37]:
        plan = frontier.under(wanted * 1.0001)
        assert plan is not None and total_error(plan) <= wanted * 1.0001
        assert total_bytes(plan) == min(size for size, error in everything if error <= wanted * 1.0001)
    assert frontier.under(0.0) is None


def test_sizes_counted_in_portions_keep_the_budget_and_waste_little() -> None:
    """Far more bytes than portions: a budget holds to the byte, and more of it never has a larger error."""
    options = synthetic(9, 60, unit=99_991)
    frontier = solve(options)
    assert frontier.portion > 100
    smallest = sum(min(o.nbytes for o in each) for each in options.values())
    largest = sum(max(o.nbytes for o in each) for each in options.values())
    assert frontier.within(smallest - 1) is None
    before = np.inf
    for budget in np.linspace(smallest, largest, 200).astype(int).tolist():
        plan = frontier.within(budget)
        assert plan is not None and total_bytes(plan) <= budget
        assert total_error(plan) <= before
        before = total_error(plan)
    exact = solve(
        {item: [Option(o.scheme, o.nbytes // 99_991, o.error) for o in each] for item, each in options.items()}
    )
    middle = (smallest + largest) // 2
    coarse, fine = frontier.within(middle), exact.within(middle // 99_991)
    assert coarse is not None and fine is not None
    assert total_error(coarse) <= 1.01 * total_error(fine)


def test_a_measurement_that_failed_is_never_chosen() -> None:
    """Weights that give NaN."""
    most = 16_000_000
    options = {("unet", "w"): [Option(Scheme("palette", 4), most // 4, float("nan")), Option(FLOAT16, most, 0.0)]}
    frontier = solve(options)
    assert frontier.within(most - 1) is None
    plan = frontier.within(most)
    assert plan is not None and plan["unet", "w"].scheme == FLOAT16
    nothing: Any = None  # is measured
    with pytest.raises(UserError, match="no recipe fits in 5.00 MB: the smallest has 16.50 MB"):
        Search(nothing, "coreml", (), {}, frontier, 500_000).best_within(5_000_000)


def test_candidates_are_those_that_the_dialect_has() -> None:
    """Three bits, and tables for groups, from iOS 18 on."""
    new, old = candidates("coreml", "ios18"), candidates("coreml", "ios17")
    assert {scheme.bits for scheme in new} - {scheme.bits for scheme in old} == {3}
    assert {scheme.group for scheme in old} == {0} and {scheme.group for scheme in new[:-1]} == {16}
    assert {scheme.kind for scheme in candidates("onnx", "ort")} == {"linear", "float"}
    for found in (new, old, candidates("onnx", "std"), candidates("tflite", "std")):
        assert found[-1] == FLOAT16 and [s.bits for s in found] == sorted(s.bits for s in found)


def test_mixed_alone_says_what_it_needs() -> None:
    with pytest.raises(UserError, match="--budget-mb or --min-median-psnr"):
        load_recipe("mixed").plan({}, Analysis("coreml", "ios18"))


@pytest.mark.parametrize(("budget_mb", "min_psnr"), [(None, None), (1.0, 40.0), (0.0, None), (None, float("nan"))])
def test_one_of_size_and_quality_is_asked_for(budget_mb: float | None, min_psnr: float | None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give"):
        search("emoji", only("tflite"), tmp_path / "out.json", ExportOptions(budget_mb=budget_mb, min_psnr=min_psnr))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_place_for_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        search(str(tmp_path / "none"), only("tflite"), tmp_path / "out.json", ExportOptions(budget_mb=2.5))


def test_search_prompts_are_nobody_elses() -> None:
    prompts = {request.prompt for request in search_requests()}
    assert len(prompts) == 8
    others = {request.prompt for request in REQUESTS} | set(SHEET)
    for file in PROMPTS.parent.glob("*.txt"):
        if file != PROMPTS:
            others |= set(read_prompts(file))
    assert not prompts & others


def test_prompts_as_a_windows_editor_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("bell pepper\r\nred apple\r\n".encode("utf-8-sig"))
    assert read_prompts(file) == ["bell pepper", "red apple"]


@pytest.mark.parametrize("other", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_only_the_end_of_a_line_ends_a_prompt(other: str, tmp_path: Path) -> None:
    """Text that was copied from a web page or a PDF holds other separators; the seeds of later prompts follow."""
    file = tmp_path / "prompts.txt"
    for end in ("\n", "\r\n"):
        file.write_bytes(f"bell{other}pepper{end}{end}red apple{end}".encode("utf-8-sig"))
        assert read_prompts(file) == [f"bell{other}pepper", "red apple"]
    file.write_text(other)
    with pytest.raises(UserError, match="has no prompts"):
        read_prompts(file)


@pytest.mark.slow
def test_a_search_writes_recipe_table_and_plot(micro_checkpoint: Path, tmp_path: Path) -> None:
    """Within the budget, and on or above every recipe of one storage."""
    out, prompts = tmp_path / "out.json", tmp_path / "search.txt"
    prompts.write_text("bell pepper\n")
    found = search(str(micro_checkpoint), only("tflite"), out, ExportOptions(budget_mb=1.2), prompts=prompts, workers=1)
    assert found.measured.nbytes <= 1_200_000
    written = load_recipe(str(out))
    assert written.schemes == found.recipe.schemes and written.floors == found.recipe.floors
    assert out.with_suffix(".sensitivity.jsonl").is_file() and "</svg>" in out.with_suffix(".svg").read_text()
    assert found.uniform.keys() == {"int8"} and len(found.searched) == 2
    for name, (mb, db) in found.uniform.items():
        size, searched = found.searched[f"of {name}'s size"]
        assert size <= mb and searched >= db
    with pytest.raises(UserError, match="no recipe fits in 0.10 MB: the smallest has"):
        search(str(micro_checkpoint), only("tflite"), out, ExportOptions(budget_mb=0.1), prompts=prompts, workers=1)


@pytest.mark.slow
def test_a_storage_that_leaves_nothing_of_one_weight(micro_checkpoint: Path, tmp_path: Path) -> None:
    """A query of 1e6, whose key is as small: beyond the scales of int4, and float16. The search goes round it."""
    attention = "mid_block.attentions.0.transformer_blocks.0.attn1"
    file = "unet/diffusion_pytorch_model.safetensors"
    checkpoint = shutil.copytree(micro_checkpoint, tmp_path / "model")
    tensors = safetensors.numpy.load_file(checkpoint / file)
    factor = np.float32(1e6 / np.abs(tensors[f"{attention}.to_q.weight"]).max())
    tensors[f"{attention}.to_q.weight"] *= factor
    tensors[f"{attention}.to_k.weight"] /= factor
    safetensors.numpy.save_file(tensors, checkpoint / file)
    out, prompts = tmp_path / "out.json", tmp_path / "search.txt"
    prompts.write_text("bell pepper\n")
    write_recipe(out, Recipe("mixed", Floors({}, (20.0, 20.0), "made"), schemes={}))
    earlier = out.read_text()
    with out.open() as before:
        found = search(str(checkpoint), only("onnx"), out, ExportOptions(budget_mb=1.2), prompts=prompts, workers=1)
        assert before.read() == earlier  # replaced, not written over
    assert found.recipe.schemes is not None
    assert found.recipe.schemes["unet"][f"unet.{attention}.to_q.weight"] == Scheme("linear", 8)
    assert set(found.uniform) == {"int4", "int8"} and set(found.searched) == {"chosen", "of int8's size"}
    assert load_recipe(str(out)) == found.recipe and found.recipe.floors is not None
    assert min(*found.recipe.floors.graphs.values(), *found.recipe.floors.pictures) >= LEAST_DB

    opened = open_checkpoint(str(checkpoint))
    parts, requests = components(opened), search_requests(prompts)
    key = analysis_key(opened, parts, requests)
    table = open_table(out.with_suffix(".sensitivity.jsonl"), key, lambda line: None)
    assert table.found  # by the search above
    (tmp_path / "recorded").mkdir()
    searched = open_search(
        analyse_here(opened, requests, tmp_path / "recorded", table), "onnx", candidates("onnx", "ort")
    )
    with pytest.raises(UserError, match="MB unet computes values that are not finite"):
        searched.recipe(searched.uniform(Scheme("linear", 4, 32)))


@pytest.mark.slow  # two searches and an export
def test_a_search_for_a_decoder_in_stripes_or_tiles(micro_checkpoint: Path, tmp_path: Path) -> None:
    """Its command exports with the same options. Random weights have no blended tiles that pass."""
    prompts = tmp_path / "search.txt"
    prompts.write_text("bell pepper\n")

    def search_with(*options: str) -> list[str]:
        options = ("--budget-mb", "1.2", "--prompts", str(prompts), *options)
        done = call("search", micro_checkpoint, "--target", "pixel-8", *options, "-o", tmp_path / "r.json")
        assert done.returncode == 0, done.stderr
        return shlex.split(done.stdout.split("; to export with this recipe: ")[1])[1:]

    done = call(*search_with("--vae-tiles", "exact"), "--proof", "quick")
    assert done.returncode == 0, done.stderr
    decoder = open_bundle(tmp_path / "r").manifest.graphs["onnx"]["vae_decoder"]
    assert decoder.recipe == "mixed" and "tiled_decoder" in decoder.rewrites
    command = " ".join(search_with("--vae-tiles", "blended", "--vae-tile-size", "7"))
    assert "--vae-tiles blended --vae-tile-size 7" in command


@pytest.mark.slow  # a search and an export
def test_what_search_says_to_do_next_is_a_command_that_works(micro_checkpoint: Path, tmp_path: Path) -> None:
    """The very line, with the model, the dialect and the size that were searched."""
    folder = tmp_path / "of mine"
    folder.mkdir()
    prompts = folder / "search.txt"
    prompts.write_text("bell pepper\n")
    options = ["--budget-mb", "1.2", "--profile", "std", "--size", "16x16", "--prompts", str(prompts)]
    done = call("search", micro_checkpoint, "--target", "pixel-8", *options, "-o", folder / "R.JSON")
    assert done.returncode == 0, done.stderr
    name, *command = shlex.split(done.stdout.split("; to export with this recipe: ")[1])
    done = call(*command)
    assert name == "pocketdiffusion" and done.returncode == 0, done.stderr
    manifest = open_bundle(folder / "R").manifest
    assert manifest.latents.width == 16 and manifest.graphs["onnx"]["unet"].profile == "std"
    assert manifest.graphs["onnx"]["unet"].recipe == "mixed"


def test_what_is_cut_off_a_prompt_is_known_of_a_model(tiny_checkpoint: Path) -> None:
    """By its own tokenizer; compare and search say it."""
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    long = "apple " * 75 + "Pear"
    assert find_cuts(checkpoint, [long, "apple"]) == {long: "Pear", "apple": ""}


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"])
def test_a_change_of_the_tokenizer_begins_the_table_afresh(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Measurements of other tokens are stale, also where only the padding or an added token is another."""

    def found(folder: Path) -> str:
        opened = open_checkpoint(str(folder), progress=lambda line: None)
        return analysis_key(opened, components(opened), search_requests())

    changed = Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))
    assert found(changed) == found(tiny_checkpoint)
    file = changed / "tokenizer" / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content, indent=3))
    assert found(changed) != found(tiny_checkpoint)
