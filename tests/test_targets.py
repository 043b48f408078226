"""Targets: seven that hold real facts with their sources, and a clear line for every mistake in a file."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pocketdiffusion.export.targets import FOLDER, Target, load_target, target_names
from pocketdiffusion.runtime.errors import UserError

REWRITES = {file.stem for file in (FOLDER.parent / "rewrites").glob("*.py")} - {"__init__"}


def refusal(name: str, folder: Path = FOLDER) -> str:
    with pytest.raises(UserError) as caught:
        load_target(name, folder)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_the_seven_targets() -> None:
    phones = ["galaxy-a13", "galaxy-s24", "galaxy-s24-ultra", "generic", "iphone-15", "iphone-16", "pixel-8"]
    assert target_names() == phones
    snapdragon = {a.format: (a.profile, a.recipe, a.compute_unit) for a in load_target("galaxy-s24-ultra").artifacts}
    assert snapdragon == {"tflite": ("std", "fp16", "gpu"), "onnx": ("std", "w8a16", "npu")}
    pixel = load_target("pixel-8")
    assert (pixel.name, pixel.title, pixel.soc) == ("pixel-8", "Google Pixel 8", "Google Tensor G3")
    assert (pixel.memory_mb, pixel.os, pixel.os_floor) == (8192, "Android", "Android 14")
    assert load_target("galaxy-s24").memory_mb == 8192
    assert load_target("galaxy-a13").memory_mb == 4096
    iphone = load_target("iphone-15")
    assert (iphone.memory_mb, iphone.os, iphone.os_floor) == (6144, "iOS", "iOS 17")
    assert [(a.format, a.profile, a.recipe) for a in iphone.artifacts] == [("coreml", "ios17", "fp16")]
    newer = load_target("iphone-16")
    assert (newer.memory_mb, newer.os_floor, newer.artifacts[0].profile) == (8192, "iOS 18", "ios18")


def test_the_neural_engine_takes_split_attention_and_a_newer_gpu_the_fused_one() -> None:
    units = {name: load_target(name).artifacts[0] for name in ("iphone-15", "iphone-16")}
    assert {name: a.compute_unit for name, a in units.items()} == {"iphone-15": "ane", "iphone-16": "gpu"}
    assert units["iphone-15"].rewrites == ("split_einsum", "fused_attention", "quick_gelu")
    assert units["iphone-16"].rewrites == ("fused_attention", "quick_gelu")


@pytest.mark.parametrize("name", target_names())
def test_target_is_whole(name: str) -> None:
    target = load_target(name)
    assert target.artifacts
    for artifact in target.artifacts:
        assert set(artifact.rewrites) <= REWRITES
    stated = {key for key in ("soc", "memory_mb", "os_floor") if getattr(target, key) is not None}
    assert set(target.sources) == stated
    for source in (*target.sources.values(), *(figure.source for figure in target.published)):
        assert source.startswith("https://")


def test_only_generic_leaves_the_batch_and_the_phone_open() -> None:
    generic = load_target("generic")
    assert (generic.soc, generic.memory_mb, generic.os_floor) == (None, None, None)
    assert [name for name in target_names() if load_target(name).open_batch] == ["generic"]


def test_targets_need_no_torch() -> None:
    """Nor do the records of the formats, by which they are checked."""
    code = (
        "import sys\n"
        "from pocketdiffusion.export.backends import backend_names, find_backend\n"
        "assert [find_backend(name) for name in backend_names()]\n"
        "from pocketdiffusion.export.targets import load_target, target_names\n"
        "assert [load_target(name) for name in target_names()]\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'onnx', 'onnxruntime', 'coremltools'} & {*sys.modules}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pixel8", "pixel-8"),
        ("Pixel 8", "pixel-8"),
        ("galaxy-s23", "galaxy-s24"),
        ("generik", "generic"),
        ("", "pixel-8"),
    ],
)
def test_unknown_target_names_the_nearest(name: str, near: str) -> None:
    assert near in refusal(name)


def test_target_outside_the_folder_is_unknown() -> None:
    assert "there is no target ../pixel-8" in refusal("../pixel-8")


def test_file_that_is_added_is_a_target(tmp_path: Path) -> None:
    (tmp_path / "new-phone.toml").write_text((FOLDER / "pixel-8.toml").read_text())
    target = load_target("new-phone", tmp_path)
    assert isinstance(target, Target) and target.name == "new-phone" and target_names(tmp_path) == ["new-phone"]


WRONG = {
    "no TOML": ('title = "', "'title'", "bad.toml"),
    "missing key": ('title = "Samsung Galaxy S24"\n', "", "title is missing"),
    "misspelt key": ("memory_mb = 8192", "memory = 8192", "memory is not a known key, did you mean memory_mb?"),
    "text for a number": ("memory_mb = 8192", 'memory_mb = "8 GB"', "memory_mb must be of type int, not str"),
    "truth for a number": ("memory_mb = 8192", "memory_mb = true", "memory_mb must be of type int, not bool"),
    "number for a truth": ("open_batch = false", "open_batch = 0", "open_batch must be of type bool, not int"),
    "missing key of an artifact": ('recipe = "fp16"\n', "", "artifacts[0].recipe is missing"),
    "unknown key of an artifact": (
        "[[artifacts]]",
        "[[artifacts]]\nopset = 20",
        "artifacts[0].opset is not a known key",
    ),
    "unknown format": (
        '"tflite"',
        '"tflight"',
        "artifacts[0].format is 'tflight' and must be one of coreml, onnx, tflite",
    ),
    "unknown profile": ('profile = "std"', 'profile = "stp"', "artifacts[0].profile is 'stp'"),
    "profile of another format": ('profile = "std"', 'profile = "ios17"', "is 'ios17', and tflite has std"),
    "rewrites of numbers": ('"chunked_attention"', "1", "artifacts[0].rewrites must be a list of names"),
    "unknown rewrite": (
        '"chunked_attention"',
        '"chunky"',
        "rewrites names chunky, and export/rewrites has no such file",
    ),
    "the registry for a rewrite": (
        '"chunked_attention"',
        '"__init__"',
        "rewrites names __init__, and export/rewrites has no such file",
    ),
    "rewrite that the format cannot have": (
        'format = "tflite"\nprofile = "std"\nrecipe = "fp16"\ncompute_unit = "gpu"',
        'format = "onnx"\nprofile = "std"\nrecipe = "fp16"\ncompute_unit = "cpu"',
        "artifacts[0].rewrites names split_timesteps, which onnx cannot have: this backend does not write constants",
    ),
    "unknown unit": ('"gpu"', '"tpu"', "artifacts[0].compute_unit is 'tpu' and must be one of cpu, gpu, ane, npu"),
    "unit of another format": ('"gpu"', '"ane"', "artifacts[0].compute_unit is 'ane', and tflite has cpu, gpu"),
    "unknown core": ('"cortex-a710"', '"cortex-a78"', "core is 'cortex-a78' and must be one of a64fx, cortex-a35, "),
    "version without a system": (
        '"Android 14"',
        '"14"',
        "os_floor is '14', and must be Android and a version, as in 'Android 14'",
    ),
    "version of another system": (
        '"Android 14"',
        '"iOS 17"',
        "os_floor is 'iOS 17', and must be Android and a version",
    ),
    "system without a version": ('"Android 14"', '"Android "', "os_floor is 'Android ', and must be Android and a ver"),
    "no artifacts": ("[[artifacts]]", "[[published]]", "artifacts is missing"),
    "figure without a device": ('device = "Samsung Galaxy S23 Ultra"\n', "", "published[0].device is missing"),
    "fact without a source": ('\nsoc = "https', '\n# soc = "https', "sources.soc must name the source"),
    "misspelt key that must be there": ("title = ", "titel = ", "titel is not a known key, did you mean title?"),
    "misspelt key of a figure": (
        "device = ",
        "devise = ",
        "published[0].devise is not a known key, did you mean device?",
    ),
    "text for a figure": ("value = 12.0", 'value = "12.0"', "published[0].value must be of type float, not str"),
    "number for a source": ('\nsoc = "https', '\nsoc = 1 # "https', "sources.soc must be of type str, not int"),
    "no table of sources": ("\n[sources]", "\n[[sources]]", "sources must be of type table, not list"),
    "source without a fact": ("\n[sources]", '\n[sources]\nprice = "x"', "sources.price must name the source"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_file_is_refused_with_file_and_key(kind: str, tmp_path: Path) -> None:
    old, new, words = WRONG[kind]
    text = (FOLDER / "galaxy-s24.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    message = refusal("bad", tmp_path)
    assert message.startswith("bad.toml: ") and words in message


def test_empty_list_of_artifacts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('title = "x"\nos = "any"\nopen_batch = true\nartifacts = []\n')
    assert refusal("bad", tmp_path) == "bad.toml: artifacts is empty"
    (tmp_path / "bad.toml").write_text('title = "x"\nos = "any"\nopen_batch = true\nartifacts = [1]\n')
    assert refusal("bad", tmp_path) == "bad.toml: artifacts[0] must be a table"


def test_files_hold_no_other_keys_than_the_table() -> None:
    for name in target_names():
        assert set(tomllib.loads((FOLDER / f"{name}.toml").read_text())) <= set(Target.__dataclass_fields__) - {"name"}
