"""The vocabulary of a checkpoint's CLIP tokenizer: vocab.json and merges.txt, whichever way the folder holds them."""

import json
import shutil
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.text_files import NotWholeError
from pocketdiffusion.runtime.errors import UserError

FILES = ("vocab.json", "merges.txt")


def check_tokenizer(folder: Path) -> None:
    """Raises UserError unless the folder holds a vocabulary and tokenizer_config.json."""
    if not all((folder / file).is_file() for file in FILES) and not (folder / "tokenizer.json").is_file():
        raise NotWholeError(f"{folder} holds no vocabulary: vocab.json and merges.txt, or tokenizer.json, are needed")
    if not (folder / "tokenizer_config.json").is_file():
        raise NotWholeError(f"{folder} holds no tokenizer_config.json: the checkpoint is not whole")


def write_vocabulary(folder: Path, out: Path) -> None:
    """Write vocab.json and merges.txt of the tokenizer in `folder` into `out`.

    They are copied as they are, or taken out of tokenizer.json, which is all that transformers 5 writes. Raises
    UserError where tokenizer.json is not that of a CLIP tokenizer.
    """
    if all((folder / file).is_file() for file in FILES):
        for file in FILES:
            shutil.copyfile(folder / file, out / file)
        return
    source = folder / "tokenizer.json"
    try:
        model: dict[str, Any] = json.loads(source.read_bytes())["model"]
        vocab, merges = model["vocab"], model["merges"]
        lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        if model["type"] != "BPE" or model["end_of_word_suffix"] != "</w>":
            raise ValueError(f"it is a {model['type']} that ends words with {model['end_of_word_suffix']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is no CLIP tokenizer ({type(error).__name__}: {error})") from None
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
