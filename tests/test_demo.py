"""`make demo`: what it states and refuses, and that a recorded model can be handed to another process."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.processes import begun_by, outlived

from pocketdiffusion.demo import COMPARED, PHONES, SHOWN, check, picture_table
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.pictures import PictureReport


def reports(*values: float) -> list[PictureReport]:
    picture = np.zeros((8, 8, 3), np.uint8)
    return [PictureReport("onnx", f"prompt {n}", db, 1.0, (90.0,), picture) for n, db in enumerate(values)]


def test_the_phones_take_all_formats() -> None:
    assert {a.format for phone in PHONES for a in load_target(phone).artifacts} == {"onnx", "coreml", "tflite"}
    assert SHOWN <= COMPARED <= len(SHEET) and COMPARED >= 12


def test_the_table_states_the_floors() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(picture_table("pixel-8", reports(36.0, 40.0, 26.0)))
    text = " ".join(shown.get().split())
    assert "3 prompts: median 36.0 dB (at least 35), minimum 26.0 dB (at least 25)" in text


@pytest.mark.parametrize("values", [(34.0, 34.9, 90.0), (24.9, 90.0, 90.0), (float("-inf"), 90.0, 90.0)])
def test_pictures_that_are_too_far_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ProofError, match="pixel-8: the pictures differ, median .*; the floors are 35 and 25 dB"):
        check("pixel-8", reports(*values))
    check("pixel-8", reports(36.0, 26.0, 90.0))


def test_a_recorded_model_goes_to_another_process(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    original = Original(checkpoint, components(checkpoint), [])
    again = pickle.loads(pickle.dumps(original))
    assert [part.spec for part in again.parts] == [part.spec for part in original.parts]
    with torch.device("meta"):
        assert list(again.parts[1].build().state_dict()) == list(original.parts[1].weights)


PIN = """
import os, sys
from importlib.abc import MetaPathFinder

class Look(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ["ONEDNN_DEFAULT_FPMATH_MODE"])

if __name__ == "__main__":
    sys.meta_path.insert(0, Look())
    from queue import Queue
    from pocketdiffusion.demo import export_for
    import torch
    torch.set_num_threads(1)
    try:
        export_for(None, "no phone", None, 1, Queue())
    except Exception as error:
        print(torch.get_num_threads(), error)
"""


def test_the_reference_is_pinned_before_torch_is_imported() -> None:
    """oneDNN reads the environment then, and what asks for bfloat16 is overruled; an export has its share of cores."""
    asking = {**os.environ, "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PIN], env=asking, capture_output=True, text=True, check=True)
    mode, said = done.stdout.splitlines()
    assert mode == "STRICT" and said.startswith(f"{os.cpu_count()} ") and "no phone" in said


@pytest.mark.slow  # records the built-in model
def test_an_export_that_is_killed_is_one_line(tmp_path: Path) -> None:
    """As the system does where memory runs out."""
    command = [sys.executable, "-m", "pocketdiffusion.demo", str(tmp_path / "out"), "pixel-8"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as demo:
        assert demo.stderr is not None
        assert any("pixel-8: writing" in line for line in demo.stderr)
        os.kill(max(pid for pid, line in begun_by(demo.pid).items() if "spawn_main" in line), signal.SIGKILL)
        _, said = demo.communicate()
    *_, said = said.splitlines()
    assert demo.returncode == 2 and "an exporting process was killed" in said, said
    assert not list((tmp_path / "out").glob("emoji-pixel-8"))


@pytest.mark.slow  # records the built-in model
def test_what_a_demo_began_ends_with_it(tmp_path: Path) -> None:
    """Its exports, and the queue that they report to."""
    command = [sys.executable, "-m", "pocketdiffusion.demo", str(tmp_path / "out"), "pixel-8"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as demo:
        assert demo.stderr is not None
        assert any("pixel-8: writing" in line for line in demo.stderr)
        begun = begun_by(demo.pid)
        assert sum("spawn_main" in line for line in begun.values()) == 2
        demo.terminate()
        assert demo.wait() < 0
        assert not outlived(begun)
    assert not list((tmp_path / "out").glob("emoji-pixel-8"))
