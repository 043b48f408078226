"""What is wrong in the options is answered before torch is imported; help and lists need nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs the command and says on the last line of stdout whether torch was imported, and the exit code.
PROGRAM = """
import sys
from pocketdiffusion.cli.app import main
sys.argv[0] = "pocketdiffusion"
try:
    main()
except SystemExit as ended:
    print(sorted({"torch", "diffusers", "transformers"} & sys.modules.keys()), ended.code)
"""


def ask(*arguments: str | Path, **environment: str) -> tuple[str, str, str]:
    """The last line of stdout, the rest of it, stderr."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ | environment)
    *said, last = done.stdout.splitlines()
    return last, "\n".join(said), done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "pixel9"), "there is no target pixel9: did you mean pixel-8?"),
        (("--recipe", "fp61"), "there is no recipe fp61: did you mean fp16"),
        (("--recipe", "absent.json"), "cannot read the recipe absent.json"),
        (("--profile", "orf"), "there is no profile orf: did you mean ort?"),
        (("--format", "onx"), "there is no format onx: did you mean onnx?"),
        (("--format", "coreml"), "--format coreml runs on iOS only, and pixel-8 has Android: leave out --format"),
        (("--sampler", "eulr"), "no sampler is called 'eulr': did you mean euler?"),
        (("--size", "big"), "--size big is not a size"),
        (("--recipe", "mixed"), "needs exactly one of --budget-mb and --min-median-psnr"),
        (("--split-unet", "0"), "--split-unet 0 is not a number of parts: give 1 or more"),
        (("--vae-tiles", "half"), "--vae-tiles half is not known: give none, exact or blended"),
        (("--budget-mb", "3"), "are for the recipe mixed only"),
        (("-o", "/proc/out"), "cannot write to /proc"),
        (("-o", "."), "cannot be an output folder"),
        (("FOLDER/absent",), "there is no folder"),
        (("FOLDER",), "is not a diffusers checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_export_answers_before_torch_is_imported(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    places = [word.replace("FOLDER", str(tmp_path)) for word in options]
    last, _, error = ask("export", "--target", "pixel-8", "-o", tmp_path / "out", *places)
    assert last == "[] 2" and said in error and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


def test_a_format_that_the_target_does_not_list_is_told() -> None:
    last, said, error = ask("export", "--target", "pixel-8", "--format", "tflite", "--plan")
    assert last == "[] 0" and "MB of memory on the phone" in said
    assert error == (
        "the target pixel-8 does not list this format: tflite (profile std, recipe fp16, unit gpu) is written\n"
    )
    assert ask("export", "--target", "pixel-8", "--format", "onnx", "--plan")[2] == ""
    assert ask("export", "--target", "generic", "--format", "coreml", "--plan")[2] == ""


def test_a_bundle_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    last, _, error = ask("export", tmp_path, "--target", "pixel-8", "-o", tmp_path / "out")
    assert last == "[] 2" and f"{tmp_path} is a bundle, and a checkpoint is needed here" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "DIR", "red apple", "--strength", "0.5"), "give --image FILE too"),
        (("verify", "DIR", "--core", "cortex-a76"), "give --device too"),
        (("verify", "DIR", "--token", "secret"), "give --against MODEL too"),
        (("verify", "DIR", "--revision", "main"), "give --against MODEL too"),
        (("verify", "DIR", "--allow-unexpected", "extra.*"), "give --against MODEL too"),
        (("search", "-o", "a.json", "--target", "pixel-8", "--min-median-psnr", "0"), "--min-median-psnr 0 is not a"),
        (("search", "-o", "a.json", "--target", "pixel-8", "--budget-mb", "-3"), "--budget-mb -3 is not a positive"),
        (("list", "foo"), "Invalid value for 'KIND': 'foo' is not one of 'recipes'"),
    ],
    ids=" ".join,
)
def test_options_that_would_have_no_effect_are_refused(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    last, _, error = ask(*(word.replace("DIR", str(tmp_path)) for word in arguments))
    assert last == "[] 2" and said in error and len(error.splitlines()) == 1, error


def test_the_first_help_says_what_a_bundle_is_and_every_exit_code() -> None:
    _, said, _ = ask("--help")
    assert "A bundle is the folder" in said
    codes = " ".join(said.split()).partition("Exit codes: ")[2].partition(".")[0]
    assert [part.split()[0] for part in codes.split("; ")] == ["0", "1", "2", "3", "130", "141"]


def test_export_needs_a_folder() -> None:
    last, _, error = ask("export", "--target", "pixel-8")
    assert last == "[] 2" and "Missing option '--output'" in error


def test_search_answers_before_torch_is_imported(tmp_path: Path) -> None:
    for options, said in (
        (("--target", "generic", "--budget-mb", "3"), "has several formats"),
        (("--target", "pixel-8"), "needs exactly one of --budget-mb and --min-median-psnr"),
        (("--target", "pixel-8", "--budget-mb", "3", "-o", "a.txt"), "name a JSON file"),
    ):
        last, _, error = ask("search", "-o", tmp_path / "a.json", *options)
        assert last == "[] 2" and said in error, error


@pytest.mark.parametrize(
    "arguments", [("--help",), ("-h",), ("export", "-h"), ("--version",), ("targets",), ("devices", "list", "-h")]
)
def test_what_needs_no_torch_does_not_import_it(arguments: tuple[str, ...]) -> None:
    last, said, error = ask(*arguments)
    assert last == "[] 0" and said and not error


def test_help_and_version_import_neither_numpy_nor_pydantic() -> None:
    """They are two thirds of the half second that a command took before it said anything."""
    program = PROGRAM.replace('"torch", "diffusers", "transformers"', '"numpy", "pydantic", "rich"')
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, timeout=100)
        assert done.stdout.splitlines()[-1] == "[] 0", done


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("recipes", ("fp32", "w8", "mixed")),
        ("samplers", ("ddim", "pndm")),
        ("profiles", ("ort", "ios18")),
        ("formats", ("onnx", "coreml", "tflite")),
        ("targets", ("pixel-8", "generic")),
    ],
)
def test_list(kind: str, names: tuple[str, ...]) -> None:
    last, said, error = ask("list", kind)
    lines = [line.split()[0] for line in said.splitlines()]
    assert last == "[] 0" and not error and set(names) <= set(lines)
    meanings = [line.partition(" ")[2].strip() for line in said.splitlines()]
    assert all(meanings) and (kind == "formats" or len(set(meanings)) == len(meanings)), "each has its own meaning"


def test_the_shell_completes_names() -> None:
    from pocketdiffusion.cli.completion import complete_formats, complete_recipes, complete_samplers, complete_targets

    assert complete_targets("pix") == ["pixel-8"] and complete_recipes("palette4") == ["palette4"]
    assert complete_samplers("eu") == ["euler", "euler_ancestral"] and complete_formats("c") == ["coreml"]
    words = {"COMP_WORDS": "pocketdiffusion export emoji --target pix", "COMP_CWORD": "4"}
    last, script, _ = ask(_POCKETDIFFUSION_COMPLETE="source_bash")
    assert last == "[] 0" and "complete -o default -F" in script
    last, found, _ = ask(_POCKETDIFFUSION_COMPLETE="complete_bash", **words)
    assert last == "[] 0" and found == "pixel-8"
