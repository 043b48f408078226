"""The small files of a checkpoint: JSON and vocabularies, read as diffusers and transformers read them."""

import json
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
VOCABULARY_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
LFS_POINTER = b"version https://git-lfs"


class NotWholeError(UserError):
    """A file of the checkpoint is missing."""


def read_text_file(file: Path) -> bytes:
    """The content of a text file. Raises UserError, naming the file, where it is missing, is a Git LFS pointer, or
    begins with a byte order mark, with which neither diffusers nor transformers reads it."""
    if not file.is_file():
        raise NotWholeError(f"{file} is missing: the checkpoint is not whole")
    content = file.read_bytes()
    if content.startswith(LFS_POINTER):
        raise UserError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
    if content.startswith(BYTE_ORDER_MARK):
        raise UserError(
            f"{file} begins with a byte order mark, with which diffusers cannot read it: save it as UTF-8 without one"
        )
    return content


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises UserError as `read_text_file`, and where it holds none."""
    try:
        content = json.loads(read_text_file(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object")
    return content
