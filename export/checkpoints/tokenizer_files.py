"""The CLIP tokenizer of a checkpoint, opened as diffusers' pipeline opens it, and written as plain data.

A folder may contain vocab.json and merges.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json and
added_tokens.json, which may contradict each other. transformers' own loader decides which of them counts; the result is
read from the tokenizer that it returns.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from pocketdiffusion.export.checkpoints.text_files import VOCABULARY_FILES, IncompleteError, read_json, read_text_file
from pocketdiffusion.export.checkpoints.tokenizer_probes import probes
from pocketdiffusion.runtime.bundle.json_files import parse
from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.tokenizer import Tokenizer, encode, make_tokenizer, read_merges

FILES = ("vocab.json", "merges.txt")
CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast", "AutoTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
_LONGEST = 100_000  # tokens; transformers uses 10^30 if a folder states no length


@dataclass(frozen=True)
class ClipTokenizer:
    """A tokenizer as transformers reads it from `folder`. `added` is in the order of ids.

    `unk_id` is the id for bytes that are not in the vocabulary, None if such bytes have no token. `makes_mask` is True
    if it makes an attention mask for each prompt.
    """

    folder: Path
    vocab: dict[str, int]
    merges: tuple[str, ...]
    max_length: int
    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int | None
    added: tuple[AddedToken, ...]
    makes_mask: bool


_OPENED: dict[tuple[str, str], ClipTokenizer] = {}  # tokenizers that this process has compared, by digest and class


def check_tokenizer(folder: Path, class_name: str) -> None:
    """Check that the folder has the files of a tokenizer, and read it if its class is one of CLIP's. Raise
    IncompleteError if a file is missing, UserError as `read_tokenizer` does."""
    if not all((folder / file).is_file() for file in FILES) and not (folder / "tokenizer.json").is_file():
        raise IncompleteError(f"{folder} has no vocabulary: vocab.json and merges.txt, or tokenizer.json, are needed")
    if not (folder / "tokenizer_config.json").is_file():
        raise IncompleteError(f"{folder} has no tokenizer_config.json: the checkpoint is incomplete")
    if class_name in CLASSES:
        read_tokenizer(folder, class_name)


def read_tokenizer(folder: Path, class_name: str) -> ClipTokenizer:
    """Open the tokenizer in `folder` with transformers' class `class_name`, which model_index.json names.

    The token ids and masks of many prompts in many scripts are compared with the runtime's. Raise UserError if
    transformers cannot open it, if it is not a CLIP tokenizer, and at the first prompt that differs.
    """
    if class_name not in CLASSES:
        raise UserError(f"{folder} is a {class_name}, which is not supported; {CLASSES[0]} is")
    key = digest(folder), class_name
    if key not in _OPENED:
        theirs = _open(folder, class_name)
        found = _read(folder, theirs)
        _compare(found, theirs)
        _OPENED[key] = found
    return replace(_OPENED[key], folder=folder)


def runtime_tokenizer(source: ClipTokenizer) -> Tokenizer:
    """Return a tokenizer of the bundle's runtime with the same vocabulary, merges and added tokens."""
    pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in source.merges)]
    try:
        return make_tokenizer(
            source.vocab,
            pairs,
            source.max_length,
            source.bos_id,
            source.eos_id,
            source.pad_id,
            source.unk_id,
            source.added,
        )
    except UserError as error:
        raise UserError(f"{source.folder}: {error}") from None


def write_vocabulary(source: ClipTokenizer, out: Path) -> None:
    """Write vocab.json and merges.txt into `out`. The folder's own files are copied byte for byte if they have the same
    content when read by the rules of docs/BUNDLE.md (no carriage returns, no duplicate keys)."""
    vocab, merges = (source.folder / file for file in FILES)
    if _says(vocab, lambda raw: parse(raw) == source.vocab):
        shutil.copyfile(vocab, out / "vocab.json")
    else:
        (out / "vocab.json").write_text(json.dumps(source.vocab, ensure_ascii=False), encoding="utf-8")
    if _says(merges, lambda raw: raw.endswith(b"\n") and tuple(read_merges(raw)) == source.merges):
        shutil.copyfile(merges, out / "merges.txt")
    else:
        (out / "merges.txt").write_text("\n".join(["#version: 0.2", *source.merges, ""]), encoding="utf-8")


def digest(folder: Path) -> str:
    """Return the sha256 (hex) over the names and contents of the files of a tokenizer."""
    total = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _open(folder: Path, class_name: str) -> Any:
    """Return transformers' tokenizer. Raise UserError, naming the file that it cannot read if one can be found."""
    try:
        return getattr(transformers, class_name).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the loader raises exceptions of any class, down to plain Exception
        for file in (folder / name for name in sorted(VOCABULARY_FILES)):
            if file.is_file():
                read_json(file) if file.suffix == ".json" else read_text_file(file)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{folder}: transformers cannot open it as {class_name} ({reason})") from None


def _read(folder: Path, theirs: Any) -> ClipTokenizer:
    """Return the data of transformers' tokenizer `theirs`. Raise UserError if the runtime does not support it."""
    model = _model(folder, theirs)
    for side in ("padding_side", "truncation_side"):
        if getattr(theirs, side) != "right":
            config = folder / "tokenizer_config.json"
            raise UserError(f"{config}: {side} {getattr(theirs, side)!r} is not supported; 'right' is")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    if wrong := [merge for merge in merges if merge.count(" ") != 1]:
        raise UserError(f"{folder} is not a CLIP tokenizer: it merges {wrong[0]!r}, and CLIP's tokens have no spaces")
    return ClipTokenizer(
        folder=folder,
        vocab=model["vocab"],
        merges=merges,
        max_length=_max_length(folder, theirs.model_max_length),
        bos_id=_special_id(folder, theirs, "bos"),
        eos_id=_special_id(folder, theirs, "eos"),
        pad_id=_special_id(folder, theirs, "pad"),
        unk_id=model["vocab"].get(model["unk_token"]),
        added=_added(folder, theirs),
        makes_mask="attention_mask" in theirs.model_input_names,
    )


def _model(folder: Path, theirs: Any) -> dict[str, Any]:
    """Return the byte-pair model inside transformers' tokenizer."""
    backend = getattr(theirs, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{folder}: transformers {transformers.__version__} does not open it with the tokenizers library: install "
            "transformers 5.0"
        )
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    kind, end = model.get("type"), model.get("end_of_word_suffix")
    if kind != "BPE" or end != "</w>":
        raise UserError(f"{folder} is not a CLIP tokenizer: it is a {kind} that ends words with {end!r}")
    if not model["vocab"] or backend.normalizer is None:
        missing = "normalizer" if model["vocab"] else "vocabulary"
        raise UserError(f"{folder} is not a CLIP tokenizer: it has no {missing}")
    return model


def _max_length(folder: Path, length: object) -> int:
    """Return model_max_length, the number of tokens of a prompt, as diffusers' pipeline uses it, whatever the text
    encoder accepts."""
    config = folder / "tokenizer_config.json"
    advice = "set it to the text encoder's max_position_embeddings, 77 for CLIP"
    if not isinstance(length, int) or isinstance(length, bool):
        raise UserError(f"{config}: model_max_length {length!r} is not an integer: {advice}")
    if length > _LONGEST:
        stored = json.loads(config.read_text(encoding="utf-8"))
        names = [name for name in ("model_max_length", "max_len") if name in stored]
        reason = f"{names[0]} {stored[names[0]]} is too large" if names else "model_max_length is missing"
        raise UserError(f"{config}: {reason}: {advice}")
    if length < 2:
        raise UserError(f"{config}: model_max_length {length} leaves no room for beginning and end: {advice}")
    return length


def _special_id(folder: Path, theirs: Any, kind: str) -> int:
    """Return the id of the token "bos", "eos" or "pad". Raise UserError if the tokenizer has none."""
    number = getattr(theirs, f"{kind}_token_id")
    if number is None:
        raise UserError(f"{folder / 'tokenizer_config.json'}: {kind}_token is missing, and every prompt needs its id")
    return int(number)


def _added(folder: Path, theirs: Any) -> tuple[AddedToken, ...]:
    """Return the added tokens, each with its expansion (the text that diffusers substitutes for a token of several
    vectors).

    Raise UserError if two are equal after normalization: transformers then matches an arbitrary one of them.
    """
    found = sorted(theirs.added_tokens_decoder.items())
    alike: dict[str, str] = {}
    for token in (token for _, token in found if token.normalized):
        other = alike.setdefault(theirs.backend_tokenizer.normalizer.normalize_str(token.content), token.content)
        if other != token.content:
            raise UserError(
                f"{folder}: the added tokens {other!r} and {token.content!r} are equal after normalization, and "
                f"transformers chooses either by chance: remove one of them"
            )
    texts = {token.content for _, token in found}
    return tuple(
        AddedToken(
            text=token.content,
            id=number,
            special=token.special,
            normalized=token.normalized,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
            expansion=_expansion(token.content, texts),
        )
        for number, token in found
    )


def _expansion(text: str, texts: Iterable[str]) -> str:
    """Return "`text` `text`_1 `text`_2 ..." for those numbers that are added tokens; "" if there is no `text`_1.

    Source: diffusers' TextualInversionLoaderMixin._maybe_convert_prompt.
    """
    vectors = [text]
    while f"{text}_{len(vectors)}" in texts:
        vectors.append(f"{text}_{len(vectors)}")
    return " ".join(vectors) if len(vectors) > 1 else ""


def _compare(found: ClipTokenizer, theirs: Any) -> None:
    """Compare the runtime's ids and masks with transformers' on all probes. Raise UserError at the first prompt that
    differs."""
    prompts, ours = probes(found.added), runtime_tokenizer(found)
    for prompt in prompts:
        written = _expand(theirs, prompt, found.added)
        try:
            expected = theirs(written, padding="max_length", max_length=found.max_length, truncation=True)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{found.folder}: transformers cannot encode {prompt!r} with it ({reason})") from None
        given = encode(ours, prompt)
        mask = expected.get("attention_mask", given.mask[0].tolist())
        if expected["input_ids"] != given.ids[0].tolist() or mask != given.mask[0].tolist():
            raise UserError(
                f"{found.folder} is not a CLIP tokenizer that the runtime supports: transformers' "
                f"{type(theirs).__name__} makes other token ids of the prompt {prompt!r}"
            )


def _expand(theirs: Any, prompt: str, added: Iterable[AddedToken]) -> str:
    """Return `prompt` with added tokens of several vectors replaced by their expansions, as diffusers' pipeline does
    first."""
    tokens = dict.fromkeys(theirs.tokenize(prompt, verbose=False))
    for token in tokens:
        for expansion in (one.expansion for one in added if one.text == token and one.expansion):
            prompt = prompt.replace(token, expansion)
    return prompt


def _says(file: Path, check: Any) -> bool:
    try:
        return file.is_file() and bool(check(file.read_bytes()))
    except ValueError:
        return False
