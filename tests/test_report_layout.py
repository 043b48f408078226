"""The pages of reports on a phone's screen: as headless Chromium lays them out, where it is installed."""

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pocketdiffusion.compare import compare_two
from pocketdiffusion.reports.compare import write_comparison

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
PHONE = 390  # pixels across
MEASURE = """<iframe width="{width}" height="2000" style="border:0" srcdoc="{page}"></iframe><p id="found"></p><script>
onload = () => {{
  const page = document.querySelector('iframe').contentDocument
  const boxes = [...page.querySelectorAll('.table')]
  const scrolls = boxes.filter(box => box.scrollWidth > box.clientWidth).length
  const first = page.querySelector('tbody tr > :first-child')
  const box = first.closest('.table')
  if (box) box.scrollLeft = 100
  const kept = first.getBoundingClientRect().left >= 0
  found.textContent = `across ${{page.documentElement.scrollWidth}} scrolling ${{scrolls}} kept ${{kept}}`
}}
</script>"""


def lay_out(folder: Path, page: str, width: int) -> tuple[int, int, bool]:
    """Return how wide a page becomes on a screen of `width` pixels, how many of its tables scroll in their own boxes,
    and whether the first column stays in view when the first table is scrolled."""
    file = folder / "measure.html"
    file.write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}")
    command = [str(CHROMIUM), *options, "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"across (\d+) scrolling (\d+) kept (\w+)</p>", done.stdout)
    assert found is not None, done.stderr[-1000:]
    return int(found[1]), int(found[2]), found[3] == "true"


@pytest.fixture(scope="module")
def pages(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The report of an export, and of a comparison."""
    facts: Any = {"prompts": ["red apple"], "seed": 0, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    compared = compare_two(
        str(tiny_bundle), str(tiny_bundle), **facts, revision=None, token=None, progress=lambda line: None
    )
    file = tmp_path_factory.mktemp("compared") / "report.html"
    write_comparison(file, compared, "")
    return {"export": (tiny_bundle / "report/report.html").read_text("utf-8"), "compare": file.read_text("utf-8")}


@pytest.mark.parametrize("name", ["export", "compare"])
def test_a_page_is_no_wider_than_a_phone(name: str, pages: dict[str, str], tmp_path: Path) -> None:
    """Its wide tables scroll in boxes of their own, under a first column that stays."""
    across, scrolling, kept = lay_out(tmp_path, pages[name], PHONE)
    assert across <= PHONE and scrolling > 0 and kept
    assert lay_out(tmp_path, pages[name], 1200)[0] <= 1200


def test_without_the_boxes_it_would_be_wider(pages: dict[str, str], tmp_path: Path) -> None:
    """So that what is measured here can fail."""
    unboxed = pages["export"].replace('class="table"', "")
    assert lay_out(tmp_path, unboxed, PHONE)[0] > PHONE
