"""The command line in other locales, and with bytes that are no text."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.pipeline import draw

PROMPT = "crème brûlée 🍮"
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def call(*arguments: str | bytes | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Arguments as bytes; a process of its own, since the locale is read when Python begins."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"pocketdiffusion", *words], capture_output=True, env=kept | environment
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "environment",
    [PLAIN, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}],
    ids=["C", "POSIX", "output in ASCII"],
)
def test_a_prompt_with_accents_is_drawn_in_every_locale(
    environment: dict[str, str], tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "süß.png"
    options = ("--negative-prompt", "déjà vu", "--steps", "1")
    done = call("generate", tiny_bundle, PROMPT, *options, "-o", out, **environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    with Image.open(out) as picture:
        assert picture.info["prompt"] == PROMPT and picture.info["negative_prompt"] == "déjà vu"
        wanted = draw(open_bundle(tiny_bundle), PROMPT, negative_prompt="déjà vu", steps=1)
        np.testing.assert_array_equal(np.asarray(picture), wanted)


@pytest.mark.parametrize("environment", [PLAIN, {"LC_ALL": "C.UTF-8"}], ids=["C", "UTF-8"])
@pytest.mark.parametrize("place", ["prompt", "option", "bundle", "command"])
def test_bytes_that_are_no_text_are_one_line(
    environment: dict[str, str], place: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    bad = b"ap\xffle"
    arguments: dict[str, tuple[str | bytes | Path, ...]] = {
        "prompt": ("generate", tiny_bundle, bad, "-o", tmp_path / "a.png"),
        "option": ("generate", tiny_bundle, "apple", "--negative-prompt", bad, "-o", tmp_path / "a.png"),
        "bundle": ("verify", bad),
        "command": (bad,),
    }
    done = call(*arguments[place], **environment)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    assert b"the argument 'ap\\xffle' is not UTF-8" in done.stderr and not list(tmp_path.iterdir())
