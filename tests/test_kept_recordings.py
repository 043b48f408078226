"""Recordings that stay on disk: found again for the same model and proof, and never used if a byte has changed."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from support.command import call

from pocketdiffusion.export import original as recording
from pocketdiffusion.export.original import Original, open_model, record_original
from pocketdiffusion.export.reference import kept_recordings
from pocketdiffusion.runtime.verify.recording import ARRAYS, Trajectory


@pytest.fixture(scope="module")
def home(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one recording: of `micro_checkpoint` for a quick proof. Read it only."""
    folder = tmp_path_factory.mktemp("recordings") / "home"
    record_again(micro_checkpoint, folder)
    return folder


def record_again(checkpoint: Path, folder: Path, **options: Any) -> Original:
    return record_original(*open_model(str(checkpoint), **options), proof="quick", recordings=folder)


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*arguments: Any, **options: Any) -> list[Trajectory]:
        raise AssertionError("the original draws")

    monkeypatch.setattr(recording, "record", draw)


def test_the_same_model_is_not_drawn_again(home: Path, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = record_original(*open_model(str(micro_checkpoint)), proof="quick")
    forbid_drawing(monkeypatch)
    kept = record_again(micro_checkpoint, home)
    assert kept.proof == "quick" and len(kept.trajectories) == len(drawn.trajectories) == 1
    for one, other in zip(kept.trajectories, drawn.trajectories, strict=True):
        assert one.program == other.program and one.controls == other.controls and one.prompt == other.prompt
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.calls.keys() == other.calls.keys()
        for graph in one.calls:
            for left, right in zip(one.calls[graph], other.calls[graph], strict=True):
                assert (left.label, left.half, left.step) == (right.label, right.half, right.step)
                for mine, theirs in ((left.inputs, right.inputs), (left.outputs, right.outputs)):
                    assert mine.keys() == theirs.keys()
                    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_another_setting_is_another_recording(
    home: Path, micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_drawing(monkeypatch)
    other = tmp_path / "other"
    copytree(micro_checkpoint, other)
    record_again(other, home)  # a copy is the same model
    settings = other / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "beta_end": 0.013}))
    with pytest.raises(AssertionError, match="the original draws"):
        record_again(other, home)
    with pytest.raises(AssertionError, match="the original draws"):
        record_again(micro_checkpoint, home, sampler="euler")
    with pytest.raises(AssertionError, match="the original draws"):
        record_original(*open_model(str(micro_checkpoint)), proof="full", recordings=home)


@pytest.mark.parametrize("change", ["flip", "remove", "index"])
def test_a_changed_file_is_not_used(
    change: str, home: Path, micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "home"
    copytree(home, copied)
    (folder,) = copied.iterdir()
    file = folder / ("recording.json" if change == "index" else "golden/0/latents.bin")
    if change == "remove":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with monkeypatch.context() as patch:
        forbid_drawing(patch)
        with pytest.raises(AssertionError, match="the original draws"):
            record_again(micro_checkpoint, copied)
    record_again(micro_checkpoint, copied)  # draws, and replaces it
    assert [each.name for each in copied.iterdir()] == [folder.name]
    forbid_drawing(monkeypatch)
    record_again(micro_checkpoint, copied)


def test_the_oldest_are_removed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = home.iterdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "old").mkdir()
    (other / "old" / "file").write_bytes(bytes(1000))
    monkeypatch.setattr(kept_recordings, "LARGEST", 500)
    kept_recordings.keep_recording(other / folder.name, [])
    assert [each.name for each in other.iterdir()] == [folder.name]


def test_a_folder_that_cannot_be_written(micro_checkpoint: Path, tmp_path: Path) -> None:
    """The export needs the drawings, not their copy."""
    (tmp_path / "file").write_text("no folder")
    lines: list[str] = []
    made = record_original(*open_model(str(micro_checkpoint)), lines.append, "quick", tmp_path / "file" / "home")
    assert made.trajectories and "is not kept in" in lines[-1]


@pytest.mark.slow
def test_one_command_exports_for_several_phones(micro_checkpoint: Path, tmp_path: Path) -> None:
    options = "--proof", "quick", "--format", "onnx", "--recordings", tmp_path / "kept"
    phones = "--target", "pixel-8", "--target", "generic"
    done = call("export", micro_checkpoint, *phones, *options, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["generic", "pixel-8"]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert done.stdout.count("is complete, every check passed") == 2
    for phone in ("pixel-8", "generic"):
        assert call("verify", tmp_path / "out" / phone).returncode == 0
    again = call("export", micro_checkpoint, *phones, *options, "-o", tmp_path / "out")
    assert again.returncode == 2 and "has a bundle already" in again.stderr


def test_several_phones_have_no_one_document(micro_checkpoint: Path, tmp_path: Path) -> None:
    done = call(
        "export", micro_checkpoint, "--target", "pixel-8", "--target", "generic", "--json", "-o", tmp_path / "out"
    )
    assert done.returncode == 2 and "give one --target" in done.stderr and not (tmp_path / "out").exists()
