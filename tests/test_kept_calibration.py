"""Statistics of activations that stay on disk: found again for the same model, and never used if a byte has changed."""

import pickle
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from pocketdiffusion.export import kept_calibration
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.kept_calibration import calibrate_once
from pocketdiffusion.export.original import Original, open_model
from pocketdiffusion.export.quantization import Calibrated
from pocketdiffusion.export.reference.requests import Request

WANTED = [Request("a", seed=1, steps=2), Request("b", seed=2, steps=2)]


@pytest.fixture(scope="module")
def home(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the statistics of `micro_checkpoint`. Read it only."""
    folder = tmp_path_factory.mktemp("calibration")
    calibrate_once(*open_model(str(micro_checkpoint)), WANTED, folder)
    return folder


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*arguments: object) -> Calibrated:
        raise AssertionError("the original draws")

    monkeypatch.setattr(kept_calibration, "calibrate", draw)


def test_the_same_prompts_are_not_drawn_again(
    home: Path, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    drawn = calibrate_once(*open_model(str(micro_checkpoint)), WANTED, None, said.append)
    assert said == ["prompts 1 to 2 of 2"]
    forbid_drawing(monkeypatch)
    kept = calibrate_once(*open_model(str(micro_checkpoint)), WANTED, home)
    assert kept.calibration == drawn.calibration
    for left, right in (
        (kept.statistics.inputs, drawn.statistics.inputs),
        (kept.statistics.outputs, drawn.statistics.outputs),
    ):
        assert left.keys() == right.keys()
        for component in left:
            assert left[component].keys() == right[component].keys()
            for one, other in zip(left[component].values(), right[component].values(), strict=True):
                assert (one.reach, one.low, one.high) == (other.reach, other.low, other.high)
                np.testing.assert_array_equal(one.counts, other.counts)


def test_other_prompts_or_another_division_are_other_statistics(
    home: Path, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_drawing(monkeypatch)
    with pytest.raises(AssertionError, match="the original draws"):
        calibrate_once(*open_model(str(micro_checkpoint)), WANTED[:1], home)
    with pytest.raises(AssertionError, match="the original draws"):
        calibrate_once(*open_model(str(micro_checkpoint), split_unet=2), WANTED, home)


def test_a_changed_file_is_not_used(
    home: Path, micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = copytree(home, tmp_path / "home")
    (file,) = copied.rglob("calibration.npz")
    content = file.read_bytes()
    opened = open_model(str(micro_checkpoint))
    forbid_drawing(monkeypatch)
    for place in range(0, len(content), len(content) // 20):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            calibrate_once(*opened, WANTED, copied)
        except AssertionError:
            continue  # it would be measured again
        assert_equal_to(calibrate_once(*opened, WANTED, home), calibrate_once(*opened, WANTED, copied))
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(AssertionError, match="the original draws"):
        calibrate_once(*opened, WANTED, copied)


def assert_equal_to(expected: Calibrated, found: Calibrated) -> None:
    """A byte may change that is not a part of any array, such as a date in the zip file."""
    assert found.calibration == expected.calibration
    for component, histograms in expected.statistics.inputs.items():
        for name, histogram in histograms.items():
            np.testing.assert_array_equal(found.statistics.inputs[component][name].counts, histogram.counts)


def test_a_model_without_a_kept_recording_keeps_nothing(
    micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is the one of the recordings; the progress goes to the caller of the export."""
    homes: list[Path | None] = []

    def note(checkpoint: object, parts: list[Component], requests: object, home: Path | None, progress: object) -> str:
        homes.append(home)
        return "calibrated"

    monkeypatch.setattr("pocketdiffusion.export.original.calibrate_once", note)
    opened = open_model(str(micro_checkpoint))
    kept = Original(*opened, [], recording=tmp_path / "home" / "digest")
    for original in (Original(*opened, []), kept, kept):
        assert str(original.calibrated()) == "calibrated"
    assert homes == [None, tmp_path / "home"], "the second use measures nothing"
    assert pickle.loads(pickle.dumps(kept)).recording == kept.recording, "a demo exports in other processes"
