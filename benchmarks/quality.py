"""Measure how well the built-in model draws: is the nearest emoji to each picture the one that the caption names?

    python benchmarks/quality.py [BUNDLE] [-o FILE.json]

Draws the 200 captions of captions.json with a bundle of the built-in model (exported first, if none is given) and finds
the nearest of all emoji, by the Euclidean distance between the VAE encoder's means of the two pictures. Prints top-1
and top-5 for wordings of the training and for others, and the VAE's reconstruction PSNR over all emoji. Exits with 1 if
top-1 is below 60 % or top-5 below 80 % on wordings of the training, or the PSNR is below 28 dB.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.engines import graph_format, open_graph
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.pipeline import draw

HERE = Path(__file__).parent
TOP_1, TOP_5, VAE_DB = 0.60, 0.80, 28.0
STEPS, GUIDANCE, SAMPLER = 20, 5.0, "dpmpp_2m"


def load_pictures(count: int) -> list[NDArray[np.uint8]]:
    """Return the training pictures, uint8 [64, 64, 3], in the order of captions.json."""
    sheet = np.asarray(Image.open(HERE / "emoji.png").convert("RGB"))
    columns = sheet.shape[1] // 64
    return [sheet[i // columns * 64 :, i % columns * 64 :][:64, :64] for i in range(count)]


def measure(bundle: Bundle) -> dict[str, float]:
    """Return the figures by name: top_1 and top_5 (wordings of the training and others), vae_db."""
    asked = json.loads((HERE / "captions.json").read_text(encoding="utf-8"))
    pictures = load_pictures(len(asked["emoji"]))
    format = graph_format(bundle)
    encoder, decoder = open_graph(bundle, "vae_encoder", format), open_graph(bundle, "vae_decoder", format)

    def encode(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean, _ = np.split(encoder({"sample": from_uint8(picture)})["latent_parameters"], 2, axis=1)
        return mean

    means = [encode(picture) for picture in pictures]
    decoded = [to_uint8(decoder({"latent_sample": mean})["sample"]) for mean in means]
    error = np.mean(np.square(np.stack(pictures).astype(np.float64) - np.stack(decoded)))
    known = np.concatenate(means).reshape(len(means), -1)
    ranks: dict[bool, list[int]] = {True: [], False: []}
    for seed, row in enumerate(track(asked["captions"], description="drawing")):
        picture = draw(bundle, row["caption"], seed=seed, steps=STEPS, guidance=GUIDANCE, sampler=SAMPLER)
        distances = np.linalg.norm(known - encode(picture).reshape(1, -1), axis=1)
        ranks[row["trained"]].append(int((distances < distances[row["emoji"]]).sum()))
    figures = {"vae_db": float(10 * np.log10(255**2 / error))}
    for trained, name in ((True, "trained"), (False, "untrained")):
        found = np.array(ranks[trained])
        figures[f"top_1_{name}"], figures[f"top_5_{name}"] = float((found < 1).mean()), float((found < 5).mean())
    return figures


def main(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle of the built-in model. Default: exported first, in fp16.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/quality.json"),
) -> None:
    if bundle is None:
        from pocketdiffusion.build import export

        with TemporaryDirectory() as scratch:
            figures = measure(export("emoji", "pixel-8", Path(scratch) / "emoji"))
    else:
        figures = measure(open_bundle(bundle))
    table = Table(
        "wordings", "top-1", "top-5", title=f"{STEPS} steps of {SAMPLER}, guidance {GUIDANCE:g}, distance of VAE means"
    )
    for name in ("trained", "untrained"):
        table.add_row(name, f"{figures[f'top_1_{name}']:.1%}", f"{figures[f'top_5_{name}']:.1%}")
    Console().print(table, f"VAE reconstruction {figures['vae_db']:.2f} dB")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["top_1_trained"] < TOP_1 or figures["top_5_trained"] < TOP_5 or figures["vae_db"] < VAE_DB:
        raise ProofError(
            f"the model must reach top-1 {TOP_1:.0%} and top-5 {TOP_5:.0%} on trained wordings, VAE {VAE_DB:g} dB"
        )


if __name__ == "__main__":
    run(lambda: typer.run(main))
