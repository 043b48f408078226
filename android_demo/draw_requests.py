"""Draw pictures with bundles in Python, as requests for the Kotlin engine's tests: each sampler, 1 to 50 steps, with
and without guidance, and from a photo of another size; with every bundle but the first, one sampler and few steps.

    python android_demo/draw_requests.py OUT BUNDLE [BUNDLE ...]

OUT has the form of the reader's kit (requests.json, photo.png, expected/), but the bundles stay where they are.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.image import read_picture, write_png
from pocketdiffusion.runtime.pipeline import draw

PHOTO = Path(__file__).parent / "engine/src/test/resources/photo.png"
FIRST = {
    "prompt": "red apple",
    "negative_prompt": None,
    "seed": 7,
    "steps": 8,
    "guidance": 7.5,
    "sampler": None,
    "strength": None,
}


def few_requests() -> Iterator[dict[str, Any]]:
    """Yield what to draw with a bundle that differs from the first in its graphs only."""
    yield {**FIRST, "steps": 5, "negative_prompt": "green"}
    yield {**FIRST, "steps": 3, "guidance": 1.0}
    yield {**FIRST, "steps": 7, "strength": 0.6, "seed": 3}


def requests(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Yield what to draw with the first bundle."""
    yield from ({**FIRST, "steps": steps, "seed": 100 + steps} for steps in (1, 2, 3, 5, 13, 20, 50))
    yield {**FIRST, "negative_prompt": "green", "seed": -1}
    yield {**FIRST, "negative_prompt": "", "prompt": "Ein Apfel, 2 ÄPFEL und 🍎", "seed": 2**64 - 1}
    yield {**FIRST, "guidance": 1.0, "prompt": "sunglasses " * 90}
    for sampler in bundle.manifest.step_tables.index.samplers:
        yield {**FIRST, "sampler": sampler}
        yield {**FIRST, "sampler": sampler, "steps": 9, "strength": 0.6, "seed": 3}
    yield {**FIRST, "steps": 4, "strength": 1.0}
    yield {**FIRST, "steps": 7, "strength": 0.2}


def main(out: Path, bundles: list[Path]) -> None:
    """Draw the requests of all bundles into the new folder `out`."""
    (out / "expected").mkdir(parents=True)
    shutil.copyfile(PHOTO, out / "photo.png")
    listed: list[dict[str, Any]] = []
    for place, folder in enumerate(bundles):
        bundle = open_bundle(folder)
        size = bundle.manifest.latents
        photo = read_picture(PHOTO, size.width * size.scale, size.height * size.scale)
        for number, request in enumerate(few_requests() if place else requests(bundle)):
            options = {name: value for name, value in request.items() if value is not None and name != "prompt"}
            if request["strength"] is not None:
                options["image"] = photo
            path = f"expected/{len(listed)}-{folder.name}-{number}.png"
            write_png(out / path, draw(bundle, request["prompt"], **options), {})
            listed.append({"bundle": str(folder.resolve()), **request, "seed": str(request["seed"]), "picture": path})
    (out / "requests.json").write_text(json.dumps({"photo": "photo.png", "draw": listed}, indent=1))
    print(f"{out}: {len(listed)} pictures")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
