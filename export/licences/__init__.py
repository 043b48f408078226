"""The licence files that a bundle must contain: the texts that the checkpoint has, CLIP's notice, and a line of
credit."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint

FOLDER = "licences"
# The address of the text of each licence that a model card on the hub may name, for checkpoints without a licence file.
ADDRESSES = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0.txt",
    "mit": "https://opensource.org/license/mit",
    "creativeml-openrail-m": "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    "openrail++": "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
    "bigscience-openrail-m": "https://huggingface.co/spaces/bigscience/license",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    "cc-by-nc-sa-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
}


@dataclass(frozen=True)
class Licences:
    """`files` are paths in the bundle; `url` is the address of the weights' licence, None if it is not known."""

    files: tuple[str, ...]
    url: str | None
    attribution: str


def write_licences(folder: Path, checkpoint: Checkpoint) -> Licences:
    """Copy the checkpoint's LICENSE and NOTICE files, unchanged, and CLIP's notice into `folder`/licences. Return their
    record."""
    (folder / FOLDER).mkdir()
    texts = {re.sub(r"[^A-Za-z0-9._-]", "_", name).rstrip("."): path for name, path in checkpoint.licence_files.items()}
    texts["CLIP.txt"] = Path(__file__).with_name("CLIP.txt")
    for name, path in texts.items():
        shutil.copyfile(path, folder / FOLDER / name)
    revision = "" if checkpoint.revision is None else f" at {checkpoint.revision[:12]}"
    credit = f"{checkpoint.name}{revision}, licence {checkpoint.licence}; tokenizer of OpenAI's CLIP, licence MIT"
    files = tuple(f"{FOLDER}/{name}" for name in sorted(texts))
    return Licences(files, ADDRESSES.get(checkpoint.licence.lower()), credit)
