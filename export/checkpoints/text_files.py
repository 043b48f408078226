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


class IncompleteError(UserError):
    """A file of the checkpoint is missing."""


def read_text_file(file: Path) -> bytes:
    """Return the content of a text file. Raise UserError, naming the file, if it is missing, is a Git LFS pointer, or
    begins with a byte order mark, which diffusers and transformers cannot read."""
    if not file.is_file():
        raise IncompleteError(f"{file} is missing: the checkpoint is incomplete")
    content = file.read_bytes()
    if content.startswith(LFS_POINTER):
        raise UserError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
    if content.startswith(BYTE_ORDER_MARK):
        raise UserError(
            f"{file} begins with a byte order mark, which diffusers cannot read: save it as UTF-8 without one"
        )
    return content


def read_json(file: Path) -> dict[str, Any]:
    """Return the object of a JSON file. Raise UserError as `read_text_file` does, and if it is not a JSON object."""
    try:
        content = json.loads(read_text_file(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON ({error}): download it again or correct it") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object: download it again or correct it")
    return content
