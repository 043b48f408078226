"""No command replaces a file that it did not write: what is there is refused before any work, and stays."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command import refusal
from support.targets import only

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.quantize.floors import Floors
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.recipe_file import write_recipe
from pocketdiffusion.reports.compare import check_report_files
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.replace_file import replace_file
from pocketdiffusion.search import PLOT_MARK, check_outputs, search


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("logo.svg", b"<svg><!-- mine --></svg>"),
        ("logo.json", b'{"name": "package", "version": "1.0"}'),
        ("logo.json", b"no JSON"),
        ("logo.json", b"[1]"),
        ("logo.sensitivity.jsonl", b"no table\n"),
        ("logo.sensitivity.jsonl", b'{"table": "mine"}\n'),
    ],
)
def test_search_replaces_only_what_it_wrote(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} exists and is not a .*: move it, or give another -o") as told:
        search(str(tmp_path / "no model"), only("tflite"), tmp_path / "logo.json", ExportOptions(budget_mb=2.5))
    assert "\n" not in str(told.value) and contents(tmp_path) == {name: content}


def test_search_replaces_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    out = tmp_path / "recipe.json"
    check_outputs(out)
    write_recipe(out, Recipe("mixed", Floors({"unet": 30.0}, (20.0, 20.0), "made"), schemes={}))
    out.with_suffix(".svg").write_text(f"{PLOT_MARK}\n<svg></svg>")
    out.with_suffix(".sensitivity.jsonl").write_text('{"key": "1", "table": "sensitivity"}\n{"half')
    check_outputs(out)
    out.write_bytes(b"")
    check_outputs(out)


def test_generate_replaces_no_picture_of_another_s(tmp_path: Path) -> None:
    """A photo, which may be the very one that is to be redrawn."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), "red").save(photo)
    before = photo.read_bytes()
    said = refusal("generate", tmp_path, "apple", "--image", photo, "-o", photo)
    assert f"{photo} exists and is not a picture that generate drew" in said
    (tmp_path / "out").write_text("notes")
    assert "is not a picture that generate drew" in refusal("generate", tmp_path, "apple", "-o", tmp_path / "out")
    assert photo.read_bytes() == before and (tmp_path / "out").read_text() == "notes"
    write_png(photo, np.zeros((8, 8, 3), np.uint8), {"prompt": "apple", "bundle_id": "0"})
    assert "already" not in refusal("generate", tmp_path, "apple", "-o", photo)  # but the folder is no bundle


def test_compare_replaces_no_page_of_another_s(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    check_report_files(page)
    page.write_text("<html>mine</html>")
    with pytest.raises(UserError, match=r"index.html exists and is not a comparison"):
        check_report_files(page)
    (tmp_path / "index.json").write_text(json.dumps({"a": {}, "b": {}, "pictures": [], "graphs": []}))
    check_report_files(page)


def test_a_picture_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write_png(path, picture, {"prompt": "apple"})
    before = path.read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from pocketdiffusion.runtime.errors import UserError\n"
        "from pocketdiffusion.runtime.image import write_png\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"try: write_png(Path({str(path)!r}), np.zeros((512, 512, 3), np.uint8), {{}})\n"
        "except UserError as error: print(error)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"cannot write {path}: File too large\n", done.stderr
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_a_file_is_replaced_as_the_user_would(tmp_path: Path) -> None:
    """With the mode that a new file gets, through a link, beside what is called .part, and into a device."""
    (tmp_path / "plain").touch()
    (tmp_path / "new.part").write_text("mine")
    replace_file(tmp_path / "new", b"1")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "new.part").read_text() == "mine"
    (tmp_path / "link").symlink_to("new")
    replace_file(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new").read_bytes() == b"2"
    replace_file(Path("/dev/null"), b"3")
    assert not Path("/dev/null").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "new", "new.part", "plain"]
