"""Draw pictures with bundles in Python, as requests for the Swift engine's tests: every sampler, 1 to 50 steps, with
and without guidance, and from a photo of another size; with every bundle but the first, few numbers of steps.

    python ios_demo/draw_requests.py OUT BUNDLE [BUNDLE ...]

OUT has the form of the reader's kit (requests.json, photo.png, expected/), but the bundles stay where they are;
photo-WxH.png are photo.png resized by Pillow.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.image import read_picture, write_png
from pocketdiffusion.runtime.pipeline import draw

FIRST = {
    "prompt": "red apple",
    "negative_prompt": None,
    "seed": 7,
    "steps": 8,
    "guidance": 7.5,
    "sampler": None,
    "strength": None,
}
STEPS = (1, 2, 3, 5, 20)
FEW = (1, 5)
MOST = 50
RESIZED = ((24, 16), (64, 64), (64, 96), (90, 40), (20, 90), (48, 33))  # widths and heights of the resized photos


def requests(bundle: Bundle, counts: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield what to draw with one bundle."""
    for sampler in bundle.manifest.step_tables.index.samplers:
        yield from ({**FIRST, "sampler": sampler, "steps": steps, "seed": 100 + steps} for steps in counts)
        yield {**FIRST, "sampler": sampler, "steps": 9, "strength": 0.6, "seed": 3}
    if counts == STEPS:
        yield {**FIRST, "steps": MOST}
    yield {**FIRST, "negative_prompt": "green", "seed": -1}
    yield {**FIRST, "negative_prompt": "", "prompt": "Ein Apfel, 2 ÄPFEL und 🍎", "seed": 2**64 - 1}
    yield {**FIRST, "guidance": 1.0, "prompt": "sunglasses " * 90}
    yield {**FIRST, "steps": 4, "strength": 1.0}
    yield {**FIRST, "steps": 7, "strength": 0.2}


def make_photo() -> np.ndarray:
    """Return a picture of 48x80 pixels, uint8 [80, 48, 3], with waves along both axes."""
    y, x = np.mgrid[0:80, 0:48]
    waves = [127.5 + 127.5 * np.sin(x / (3 + k) + k) * np.cos(y / (5 - k)) for k in range(3)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def main(out: Path, bundles: list[Path], counts: Iterable[int] = STEPS) -> None:
    """Draw the requests of all bundles into the new folder `out`, each sampler with these numbers of steps."""
    (out / "expected").mkdir(parents=True)
    write_png(out / "photo.png", make_photo(), {})
    for width, height in RESIZED:
        write_png(out / f"photo-{width}x{height}.png", read_picture(out / "photo.png", width, height), {})
    listed: list[dict[str, Any]] = []
    for number, folder in enumerate(bundles):
        bundle = open_bundle(folder)
        size = bundle.manifest.latents
        photo = read_picture(out / "photo.png", size.width * size.scale, size.height * size.scale)
        for request in requests(bundle, FEW if number else counts):
            options = {name: value for name, value in request.items() if value is not None and name != "prompt"}
            if request["strength"] is not None:
                options["image"] = photo
            path = f"expected/{len(listed)}-{folder.name}.png"
            write_png(out / path, draw(bundle, request["prompt"], **options), {})
            listed.append({"bundle": str(folder.resolve()), **request, "seed": str(request["seed"]), "picture": path})
    (out / "requests.json").write_text(json.dumps({"photo": "photo.png", "draw": listed}, indent=1))
    print(f"{out}: {len(listed)} pictures")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
