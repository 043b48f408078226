"""What other programs leave in a bundle's folder is passed over, and never sealed."""

import shutil
from pathlib import Path

import pytest

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.leftovers import is_worthless
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.staging import check_output_folder
from pocketdiffusion.runtime.errors import UserError


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def test_what_file_browsers_leave_is_overlooked(bundle: Path) -> None:
    before = open_bundle(bundle).manifest
    for name in (".DS_Store", "onnx/.DS_Store", "onnx/unet/._model.onnx", "tokenizer/Thumbs.db"):
        (bundle / name).write_bytes(b"junk")
    assert open_bundle(bundle).manifest == before
    assert seal(bundle, before) == before


LEFT_BEHIND = (
    ".nomedia",
    "onnx/.nomedia",
    "tokenizer/desktop.ini",
    "Desktop.ini",
    ".gitattributes",
    ".gitignore",
    ".cache/huggingface/.gitignore",
    ".cache/huggingface/download/onnx/unet/model.onnx.metadata",
    ".huggingface/download/manifest.json.lock",
    ".git/HEAD",
    ".git/refs/heads/main",
    ".thumbnails/1.jpg",
    ".trashed-1700000000-0.png",
    "LOST.DIR/1",
    ".Trashes/501/x",
    "$RECYCLE.BIN/desktop.ini",
    "System Volume Information/WPSettings.dat",
    "__MACOSX/._onnx",
    "onnx/@eaDir/model.onnx@SynoEAStream",
    ".stfolder/syncthing-folder-1.txt",
    ".syncthing.model.onnx.tmp",
    ".dropbox",
    ".directory",
    ".localized",
    ".fuse_hidden0000000100000001",
    "onnx/.ipynb_checkpoints/x",
)


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_programs_leave_behind_is_overlooked(bundle: Path, name: str) -> None:
    """File browsers, Android, the hub, git, sync tools. An export takes the place of no folder with such in it, save
    what a file browser writes again."""
    before = open_bundle(bundle).manifest
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_bytes(b"junk")
    assert open_bundle(bundle).manifest == before
    if not is_worthless(Path(name).name):
        with pytest.raises(UserError, match="which no export wrote"):
            check_output_folder(bundle)
