"""Make the README's pictures of the app's screens from the screenshots of its tests.

    python android_demo/screenshots.py

Run Maven's tests of the app first: they write every screen to app/target/screenshots. Each that README.md shows becomes
a small PNG in android_demo/screenshots.
"""

import re
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
TAKEN = HERE / "app/target/screenshots"
KEPT = HERE / "screenshots"
SIDE = 240  # pixels, of the shorter side
MOST_BYTES = 100_000


def shrink(taken: Path, kept: Path) -> None:
    """Write one screenshot in the README's size. Raises ValueError if it is larger than MOST_BYTES."""
    picture = Image.open(taken).convert("RGB")
    scale = SIDE / min(picture.size)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    small.save(kept, optimize=True)
    if kept.stat().st_size > MOST_BYTES:
        raise ValueError(f"{kept.name} has {kept.stat().st_size} bytes; at most {MOST_BYTES} are allowed")


def main() -> None:
    KEPT.mkdir(exist_ok=True)
    for stale in KEPT.glob("*.png"):
        stale.unlink()
    shown = sorted(set(re.findall(r"screenshots/([\w-]+\.png)", (HERE / "README.md").read_text())))
    for name in shown:
        shrink(TAKEN / name, KEPT / name)
    print(f"{len(shown)} screenshots")


if __name__ == "__main__":
    main()
