"""The reader's kit: tiny bundles, each with another way to draw, by which any reader proves itself in seconds.

OUT/NAME/            a bundle of a few MB, of a model with random weights (export/kit_models.py)
OUT/requests.json    what to draw with which bundle, and the file of the expected picture
OUT/expected/        the pictures that diffusers' own pipeline drew, PNG
OUT/photo.png        the input of image-to-image, in the size that the bundles draw
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from secrets import randbelow
from tempfile import TemporaryDirectory

import pocketdiffusion
from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions, choose
from pocketdiffusion.export.kit_models import MODELS, SIZE, KitModel, make_photo, write_model
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.drawings import Drawing, draw_with_pipeline
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.staging import check_output_folder
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.sampling.samplers import sampler_names

TARGET = "generic"
SEEDS = 2**31
VOCABULARY = Path(pocketdiffusion.__file__).parent / "models/emoji/tokenizer"  # CLIP's


def write_kit(
    out: Path, *, format: str | None = None, seed: int | None = None, progress: Progress = lambda line: None
) -> int:
    """Write the kit into the new folder `out` and return the number of its expected pictures. `format`: default is
    the first of the target generic. `seed`: of the random weights; default is a random one. Raises UserError if
    `out` exists or `format` is unknown, and ProofError if a bundle's verdicts fail."""
    check_output_folder(out)
    format = choose(load_target(TARGET), None, format, None).artifacts[0].format
    seed = randbelow(SEEDS) if seed is None else seed
    photo = make_photo(seed)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "kit"
        (folder / "expected").mkdir(parents=True)
        write_png(folder / "photo.png", photo, {})
        listed = []
        for number, model in enumerate(MODELS):
            progress(f"writing {model.name}: {model.tests}")
            source = Path(scratch) / model.name
            write_model(model, source, VOCABULARY, seed + number)
            export(str(source), TARGET, folder / model.name, ExportOptions(format=format, proof="quick"))
            checkpoint = open_checkpoint(str(source), progress=lambda line: None)
            for count, drawing in enumerate(drawings(model)):
                picture = draw_with_pipeline(checkpoint, drawing, SIZE, photo)
                path = f"expected/{model.name}-{count}.png"
                write_png(folder / path, picture, {})
                listed.append({"bundle": model.name, **asdict(drawing), "seed": str(drawing.seed), "picture": path})
        kit = {"seed": str(seed), "photo": "photo.png", "draw": listed}
        (folder / "requests.json").write_text(json.dumps(kit, indent=1))
        folder.rename(out)
    return len(listed)


def drawings(model: KitModel) -> list[Drawing]:
    """Return what a reader draws with one bundle of the kit: prompts of every kind, with and without guidance, from
    a photo."""
    first = Drawing(f"{model.word} and 2 ÄPFEL, a sunflower's petals!", None, seed=1, steps=6, guidance=5.0)
    found = [
        first,
        replace(first, negative_prompt="blurry, low quality", seed=-3, steps=3),
        replace(first, negative_prompt="", prompt="", seed=2**63, steps=1),
        replace(first, guidance=1.0, prompt="猫 🐈 кот " * 40, steps=4),
        replace(first, strength=0.6, seed=5),
    ]
    if model.all_samplers:
        found += [replace(first, sampler=name, steps=5) for name in sampler_names()]
        found += [replace(first, sampler=name, steps=9, strength=0.5) for name in sampler_names()]
    return found
