"""Folders of tokenizers, as checkpoints have them: with added tokens, and with files that say different things."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from transformers import CLIPTokenizer

SOURCE = Path(__file__).parents[2] / "pocketdiffusion/models/emoji/tokenizer"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 862328\n"
MERGES = 1500
FIRST = 512 + MERGES + 2  # the id of the first added token: behind the bytes, what merges make, and the two marks
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def whole(folder: Path, **settings: Any) -> Path:
    """CLIP's vocab.json and merges.txt, and tokenizer_config.json with `settings`."""
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(SOURCE / name, folder / name)
    configure(folder, **{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77} | settings)
    return folder


def plain(folder: Path, **settings: Any) -> Path:
    """As `whole`, with the first `MERGES` merges alone, which is much faster to open."""
    folder.mkdir()
    write(folder, _small())
    configure(folder, **{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77} | settings)
    return folder


@cache
def _small() -> dict[str, Any]:
    real = json.loads((SOURCE / "vocab.json").read_text())
    tokens = [*list(real)[: FIRST - 2], "<|startoftext|>", "<|endoftext|>"]
    merges = (SOURCE / "merges.txt").read_text().split("\n")[: MERGES + 1]
    return {"vocab.json": {token: n for n, token in enumerate(tokens)}, "merges.txt": "\n".join([*merges, ""])}


def configure(folder: Path, **settings: Any) -> None:
    """Changes tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.is_file() else {}) | settings))


def saved(folder: Path, *tokens: str | tokenizers.AddedToken) -> Path:
    """tokenizer.json alone, as transformers 5 saves a tokenizer to which `tokens` were added."""
    theirs = CLIPTokenizer.from_pretrained(plain(folder))
    theirs.add_tokens(list(tokens))
    theirs.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    return folder


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    """Writes `files` into it: text as it is, anything else as JSON."""
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def flagged(text: str, **flags: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(text, **flags)


def entry(text: str, **flags: bool) -> dict[str, Any]:
    """An added token as JSON files have it."""
    return {"content": text, **dict.fromkeys(FLAGS, False), **flags}


TINY = {
    "vocab.json": {
        token: number
        for number, token in enumerate(
            "l o w e r s t i d n lo l</w> w</w> r</w> t</w> low</w> er</w> <unk> <|startoftext|> <|endoftext|>".split()
        )
    },
    "merges.txt": "#version: 0.2\nl o\nlo w</w>\ne r</w>\n",
}

KINDS: Mapping[str, Callable[[Path], Path]] = {
    "two files": whole,
    "padding with ! by the map": lambda f: write(
        plain(f, pad_token="<|endoftext|>"),
        {"special_tokens_map.json": {"pad_token": "!", "eos_token": entry("<|endoftext|>", normalized=True)}},
    ),
    "a token in tokenizer.json": lambda f: saved(f, "<cat-toy>"),
    "several tokens": lambda f: saved(f, "<cat-toy>", "sks", "<dog>"),
    "several vectors": lambda f: saved(f, "<cat-toy>", "<cat-toy>_1", "<cat-toy>_2", "<dog>", "<dog>_1"),
    "white space to the left": lambda f: saved(f, flagged("<cat-toy>", lstrip=True), flagged("<dog>", rstrip=True)),
    "vectors that take white space": lambda f: saved(
        f, flagged("<cat-toy>", lstrip=True), flagged("<cat-toy>_1", lstrip=True, rstrip=True)
    ),
    "whole words": lambda f: saved(f, flagged("cat", single_word=True), flagged("dog", single_word=True, lstrip=True)),
    "as typed": lambda f: saved(f, flagged("<Cat-toy>", normalized=False), flagged("<cat-toy>", normalized=False)),
    "spaces and capitals": lambda f: saved(f, "my cat", "My Dog", "ÉTÉ", "<Cat  Toy>"),
    "one the beginning of another": lambda f: saved(f, "c", "cat", "cat-toy", "<cat-toy>", "<cat"),
    "added_tokens.json": lambda f: write(
        plain(f), {"added_tokens.json": {"<cat-toy>": FIRST, "<cat-toy>_1": FIRST + 1}}
    ),
    "ids with a gap": lambda f: write(plain(f), {"added_tokens.json": {"<cat-toy>": FIRST + 2, "<dog>": FIRST + 90}}),
    "added_tokens_decoder": lambda f: plain(
        f,
        pad_token="<pad>",
        added_tokens_decoder={
            str(FIRST): entry("<cat-toy>", normalized=True),
            str(FIRST + 1): entry("<pad>", special=True),
        },
    ),
    "an end of its own": lambda f: plain(f, eos_token="<end>", pad_token="<end>"),
    "special tokens besides": lambda f: plain(f, additional_special_tokens=["<cat-toy>", "<DOG>"]),
    "64 tokens": lambda f: plain(f, model_max_length=64),
    "248 tokens": lambda f: plain(f, model_max_length=248),
    "a pointer beside tokenizer.json": lambda f: write(saved(f, "<cat-toy>"), {"vocab.json": POINTER}),
    "lines that end as on Windows": lambda f: write(
        plain(f), {"merges.txt": _small()["merges.txt"].replace("\n", "\r\n")}
    ),
    "a vocabulary without most bytes": lambda f: write(plain(f, unk_token="<unk>"), TINY),
}


def _marked(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        plain(folder)
        file = folder / name
        file.write_bytes(b"\xef\xbb\xbf" + (file.read_bytes() if file.is_file() else b"{}"))
        return folder

    return make


def _length(value: object) -> Callable[[Path], Path]:
    return lambda folder: plain(folder, model_max_length=value)


REFUSED: Mapping[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "a pointer as vocabulary": (lambda f: write(plain(f), {"vocab.json": POINTER}), ("vocab.json", "git lfs pull")),
    "a pointer as merges": (lambda f: write(plain(f), {"merges.txt": POINTER}), ("merges.txt", "git lfs pull")),
    "a pointer as tokenizer": (lambda f: write(saved(f), {"tokenizer.json": POINTER}), ("r.json", "git lfs pull")),
    "a mark in the vocabulary": (_marked("vocab.json"), ("vocab.json", "byte order mark")),
    "a mark in the merges": (_marked("merges.txt"), ("merges.txt", "byte order mark")),
    "a mark in the settings": (_marked("tokenizer_config.json"), ("tokenizer_config.json", "byte order mark")),
    "a mark in the added tokens": (_marked("added_tokens.json"), ("added_tokens.json", "byte order mark")),
    "settings in a list": (
        lambda f: write(plain(f), {"tokenizer_config.json": []}),
        ("config.json", "not a JSON object"),
    ),
    "cut JSON": (lambda f: write(plain(f), {"vocab.json": '{"a": 1'}), ("vocab.json", "not valid JSON")),
    "another model": (
        lambda f: write(saved(f), {"tokenizer.json": {"model": {"type": "WordPiece"}, "added_tokens": []}}),
        ("transformers cannot open it",),
    ),
    "length of 10^30": (_length(10**30), ("tokenizer_config.json", "model_max_length", "max_position_embeddings")),
    "length null": (_length(None), ("tokenizer_config.json", "model_max_length")),
    "length in words": (_length("77"), ("tokenizer_config.json", "model_max_length '77' is not an integer")),
    "length 77.0": (_length(77.0), ("model_max_length 77.0 is not an integer",)),
    "length true": (_length(True), ("model_max_length True is not an integer",)),
    "length 1": (_length(1), ("model_max_length 1 leaves no room",)),
    "no length": (
        lambda f: write(plain(f), {"tokenizer_config.json": {}}),
        ("tokenizer_config.json", "model_max_length is missing"),
    ),
    "padding before": (lambda f: plain(f, padding_side="left"), ("tokenizer_config.json", "padding_side 'left'")),
    "cut before": (lambda f: plain(f, truncation_side="left"), ("tokenizer_config.json", "truncation_side 'left'")),
    "marks split": (lambda f: plain(f, split_special_tokens=True), ("<|startoftext|>a cat", "other token ids")),
    "no padding": (lambda f: plain(f, pad_token=None), ("tokenizer_config.json", "pad_token is missing")),
    "tokens alike": (lambda f: saved(f, "<Tw>", "<tw>"), ("'<Tw>' and '<tw>'", "by chance")),
}
