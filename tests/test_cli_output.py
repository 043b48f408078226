"""Streams and exit codes: results on stdout, the rest on stderr, JSON alone, an error of our own is 3."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import call, files_below, refusal

from pocketdiffusion.cli.progress import duration, time_left
from pocketdiffusion.runtime.bundle.bundle import open_bundle

INJECTED = """
import sys
import pocketdiffusion.export.targets as targets
from pocketdiffusion.cli.app import main

def broken(*_):
    raise {error}

targets.load_target = broken
sys.argv = ["pocketdiffusion", "targets"]
main()
"""


def inject(error: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`targets` where an inner function raises; temporary files go to `folder`."""
    return subprocess.run(
        [sys.executable, "-c", INJECTED.format(error=error)],
        capture_output=True,
        text=True,
        timeout=100,
        env={"TMPDIR": str(folder), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("error", ["KeyError('unet')", "AssertionError()", "ValueError('a\\nb')"])
def test_an_internal_error_is_3_and_its_traceback_is_kept(error: str, tmp_path: Path) -> None:
    done = inject(error, tmp_path)
    assert done.returncode == 3 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "our fault" in line and error.partition("(")[0] in line
    (file,) = tmp_path.iterdir()
    assert line.endswith(str(file)) and "in broken" in file.read_text()


def test_an_internal_error_where_nothing_can_be_written(tmp_path: Path) -> None:
    done = inject("KeyError('unet')", Path("/proc"))
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1
    assert "our fault" in done.stderr


def test_the_users_mistake_is_2_and_a_failed_proof_1(tmp_path: Path) -> None:
    assert inject("__import__('pocketdiffusion').runtime.errors.UserError('no')", tmp_path).returncode == 2
    assert inject("__import__('pocketdiffusion').runtime.errors.ProofError('no')", tmp_path).returncode == 1
    assert not list(tmp_path.iterdir())


# JSON.


def test_json_is_all_there_is_on_stdout(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    phones = json.loads(call("targets", "--json").stdout)
    assert {"name", "title", "soc", "memory_mb", "os", "os_floor", "artifacts"} == phones[0].keys()
    bundle = json.loads(call("inspect", tiny_bundle, "--json").stdout)
    assert bundle["kind"] == "bundle" and bundle["bundle_id"] == manifest.bundle_id and bundle["passed"] is True
    assert (bundle["width"], bundle["height"]) == (32, 32) and len(bundle["verdicts"]) == len(manifest.verdicts)
    assert [graph["name"] for graph in bundle["graphs"]] == list(manifest.graphs["onnx"])
    model = json.loads(call("inspect", tiny_checkpoint, "--json").stdout)
    assert model["kind"] == "model" and "unet" in [part["name"] for part in model["components"]]
    names = json.loads(call("list", "recipes", "--json").stdout)
    assert {"fp32", "fp16"} <= {each["name"] for each in names}


def test_verify_as_json(tiny_bundle: Path) -> None:
    done = call("verify", tiny_bundle, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["passed"] is True and found["device"] == "host" and not done.stderr
    assert all(verdict["passed"] for verdict in found["verdicts"]) and found["not_judged"] == ""
    assert {"subject", "rung", "psnr_db", "floor_db", "passed"} <= found["verdicts"][0].keys()


def test_compare_as_json(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("apple\n")
    options = ("--prompts", tmp_path / "prompts.txt", "--steps", "2", "--min-psnr", "1000", "--json")
    done = call("compare", tiny_bundle, tiny_bundle, *options)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["lowest_db"] == "inf" and found["pictures"][0]["prompt"] == "apple"


# Streams.


def test_quiet_prints_errors_only(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    done = call("generate", tiny_bundle, "apple " * 76, "--steps", "1", "-q", "-o", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and out.is_file()
    assert "is not a bundle" in refusal("verify", tmp_path, "--quiet")


def test_warnings_are_on_stderr_and_results_on_stdout(tiny_bundle: Path, tmp_path: Path) -> None:
    done = call("generate", tiny_bundle, "apple " * 75 + "pear", "--steps", "2", "-o", tmp_path / "a.png")
    assert "'pear' was cut off" in done.stderr and "cut off" not in done.stdout
    assert "32x32, seed 0, 2 steps" in done.stdout


def test_where_nobody_looks_on_there_is_no_progress_and_no_control_character(tiny_bundle: Path) -> None:
    done = call("verify", tiny_bundle)
    assert not done.stderr and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout)


def test_the_time_left_is_told_where_steps_are_counted() -> None:
    now = iter([0.0, 10.0, 20.0, 100.0, 160.0, 200.0, 240.0])
    show = time_left(lambda: next(now))
    assert show("loading torch") == "loading torch"
    assert show("recording: prompt 1 of 4") == "recording: prompt 1 of 4"
    assert show("recording: prompt 2 of 4") == "recording: prompt 2 of 4, about 30 s left"
    assert show("recording: prompt 3 of 4") == "recording: prompt 3 of 4, about 20 s left"
    assert show("damage: 7 of 9, unet") == "damage: 7 of 9, unet", "other work begins anew"
    assert show("damage: 9 of 9, unet") == "damage: 9 of 9, unet, about 30 s left"
    assert show("calibrating: prompts 1 to 4 of 12") == "calibrating: prompts 1 to 4 of 12"
    assert show("calibrating: prompts 5 to 8 of 12") == "calibrating: prompts 5 to 8 of 12, about 50 s left"
    assert [duration(seconds) for seconds in (0.2, 89, 95, 7500)] == ["1 s", "89 s", "2 min", "2 h 5 min"]


# An older bundle.


def test_an_older_bundle_is_replaced_with_force_only(tiny_bundle: Path, tmp_path: Path) -> None:
    out = shutil.copytree(tiny_bundle, tmp_path / "out")
    before = files_below(out)
    for command in (("export", "--target", "generic", "-o", out), ("runtime-part", tiny_bundle, out)):
        assert "has a bundle already: give --force" in refusal(*command)
    assert files_below(out) == before and sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    done = call("runtime-part", tiny_bundle, out, "--force")
    assert done.returncode == 0 and "report/report.html" not in files_below(out)


def test_force_does_not_replace_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert "exists and is not a folder that an export wrote" in refusal(
        "export", "--target", "generic", "-o", tmp_path / "mine", "--force"
    )
    assert files_below(tmp_path) == ["mine/thesis.txt"]


def test_an_empty_folder_needs_no_force(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert call("runtime-part", tiny_bundle, tmp_path / "out").returncode == 0


def test_what_of_a_checkpoint_is_passed_over_stays_on_the_screen(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A warning on stderr, also where no progress is shown; not with --quiet."""
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    shutil.copytree(model / "vae", model / "vae_of_mine")
    for quiet in ((), ("-q",)):
        done = call("export", model, "--target", "generic", "--size", "33x32", "-o", tmp_path / "out", *quiet)
        assert done.returncode == 2 and ("are ignored: vae_of_mine" in done.stderr) == (not quiet), done.stderr
