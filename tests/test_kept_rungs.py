"""Verdicts on the rungs below an artifact that stay on disk: found again for the same artifact only, and only if all
passed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.checks import kept_rungs, ladder

pytestmark = pytest.mark.slow  # three exports


@pytest.fixture(scope="module")
def home(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recording and verdicts of `micro_checkpoint`, and its bundle for pixel-8. Read it only."""
    folder = tmp_path_factory.mktemp("rungs")
    export_for("pixel-8", micro_checkpoint, folder, folder / "pixel-8")
    return folder


def export_for(target: str, checkpoint: Path, home: Path, out: Path) -> None:
    export(str(checkpoint), target, out, ExportOptions(proof="quick", recordings=home / "recordings"))


def rung_files(home: Path) -> list[Path]:
    return sorted(home.glob("recordings/*/rungs/*.json"))


def read_verdicts(bundle: Path) -> Any:
    return json.loads((bundle / "proof.json").read_text())["verdicts"]


def forbid_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(*arguments: Any) -> Iterator[ladder.Rung]:
        raise AssertionError("a rung is judged")

    monkeypatch.setattr(ladder, "list_rungs", judge)


def test_the_rungs_of_the_same_artifact_are_judged_once(
    home: Path, micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(rung_files(home)) == 4  # one for each graph
    forbid_rungs(monkeypatch)
    export_for("galaxy-a13", micro_checkpoint, home, tmp_path / "out")  # another phone, the same artifacts
    assert read_verdicts(tmp_path / "out") == read_verdicts(home / "pixel-8")
    monkeypatch.setattr(kept_rungs, "_code_digest", lambda: "another")
    with pytest.raises(AssertionError, match="a rung is judged"):
        export_for("galaxy-a13", micro_checkpoint, home, tmp_path / "other")


def test_only_verdicts_that_passed_are_kept(home: Path, tmp_path: Path) -> None:
    passed = kept_rungs.read_rungs(rung_files(home)[0])
    assert passed and all(verdict.passed and verdict.case_db for verdict in passed)
    file = tmp_path / "rungs.json"
    kept_rungs.keep_rungs(file, [replace(passed[0], psnr_db=1.0), *passed[1:]])
    assert not file.exists()
    kept_rungs.keep_rungs(file, passed)
    assert kept_rungs.read_rungs(file) == passed


def test_verdicts_that_cannot_be_read_are_not_used(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rungs.json"
    text = rung_files(home)[0].read_text()
    for changed in (
        text[:-9],
        text.replace('"psnr_db"', '"psnr"', 1),
        text.replace('"passed": true', '"passed": false', 1),
    ):
        file.write_text(changed)
        assert kept_rungs.read_rungs(file) is None
