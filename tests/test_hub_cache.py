"""Folders that an interrupted download from the hub left, and names that could mean two models."""

import os
import shutil
from pathlib import Path

import pytest

from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"
LEFT_OUT = [
    UNET,
    "unet/config.json",
    "unet",
    "model_index.json",
    "tokenizer",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
    "vae",
]


def snapshot(checkpoint: Path, cache: Path) -> Path:
    """A hub's cache with one model, as huggingface_hub lays it out: a snapshot is links to blobs."""
    repo = cache / "models--someone--tiny-sd"
    folder = repo / "snapshots" / COMMIT
    for number, file in enumerate(sorted(path for path in checkpoint.rglob("*") if path.is_file())):
        blob, link = repo / "blobs" / f"{number:040x}", folder / file.relative_to(checkpoint)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, blob) if file.stat().st_dev == cache.stat().st_dev else shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


def told(name: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        open_checkpoint(str(name), progress=lambda line: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", LEFT_OUT)
@pytest.mark.parametrize("how", ["no link", "no blob"])
def test_half_a_snapshot_is_named_as_such(path: str, how: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = snapshot(tiny_checkpoint, tmp_path)
    open_checkpoint(str(folder), progress=lambda line: None)
    place = folder / path
    for file in [place] if place.is_symlink() else [each for each in place.rglob("*") if each.is_symlink()]:
        if how == "no link":
            file.unlink()
        else:
            blob = file.resolve()
            blob.rename(f"{blob}.incomplete")
    if how == "no link" and place.is_dir():
        shutil.rmtree(place)
    (tmp_path / "link").symlink_to(folder)
    for name in (folder, tmp_path / "link", Path(os.path.relpath(folder))):
        said = told(name)
        assert "an incomplete snapshot of someone/tiny-sd in the hub's cache" in said
        assert f"hf download someone/tiny-sd --revision {COMMIT}" in said
        assert "run the command again online" in said


def test_half_a_download_to_a_folder_is_named_as_such(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))
    (folder / UNET).unlink()
    assert "hub" not in told(folder)
    (folder / ".cache/huggingface/download/unet").mkdir(parents=True)
    (folder / f".cache/huggingface/download/{UNET}.abc.incomplete").touch()
    said = told(folder)
    assert "was downloaded from the hub" in said and f"--local-dir {folder}` again" in said


def test_a_folder_of_the_built_in_model_s_name(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is taken in silence; a bundle of that name, as `export emoji -o emoji` makes, is no second meaning."""
    monkeypatch.chdir(tmp_path)
    built_in = open_checkpoint("emoji", progress=lambda line: None)
    (tmp_path / "emoji").mkdir()
    assert open_checkpoint("emoji", progress=lambda line: None).fingerprint == built_in.fingerprint
    shutil.copytree(tiny_checkpoint, tmp_path / "emoji", dirs_exist_ok=True)
    said = told("emoji")
    assert "give ./emoji to export that checkpoint" in said
    assert open_checkpoint("./emoji", progress=lambda line: None).fingerprint != built_in.fingerprint
