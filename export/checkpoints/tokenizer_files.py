"""The CLIP tokenizer of a checkpoint, opened as diffusers' pipeline opens it, and written as plain data.

A folder may hold vocab.json and merges.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json and
added_tokens.json, which may say different things. transformers' own loader decides which of them counts; what it made
of them is then read out of the tokenizer that it returns.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from pocketdiffusion.export.checkpoints.text_files import VOCABULARY_FILES, NotWholeError, read_json, read_text_file
from pocketdiffusion.export.checkpoints.tokenizer_probes import probes
from pocketdiffusion.runtime.bundle.json_files import parse
from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.tokenizer import Tokenizer, encode, make_tokenizer, read_merges

FILES = ("vocab.json", "merges.txt")
CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast", "AutoTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
_LONGEST = 100_000  # tokens; transformers says 10^30 where a folder says nothing


@dataclass(frozen=True)
class ClipTokenizer:
    """What a tokenizer's folder says, by transformers' reading. `added` is in the order of ids.

    `unk_id` is the id of a byte that the vocabulary lacks, None where such bytes have no token. `gives_mask` tells
    whether it makes an attention mask for each prompt.
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
    gives_mask: bool


_OPENED: dict[tuple[str, str], ClipTokenizer] = {}  # what this process has opened and compared, by digest and class


def check_tokenizer(folder: Path, class_name: str) -> None:
    """Raises UserError unless the folder holds the files of a tokenizer, and as `read_tokenizer` does where its class
    is one of CLIP's."""
    if not all((folder / file).is_file() for file in FILES) and not (folder / "tokenizer.json").is_file():
        raise NotWholeError(f"{folder} holds no vocabulary: vocab.json and merges.txt, or tokenizer.json, are needed")
    if not (folder / "tokenizer_config.json").is_file():
        raise NotWholeError(f"{folder} holds no tokenizer_config.json: the checkpoint is not whole")
    if class_name in CLASSES:
        read_tokenizer(folder, class_name)


def read_tokenizer(folder: Path, class_name: str) -> ClipTokenizer:
    """Open the tokenizer in `folder` by transformers' class of that name, as model_index.json gives it.

    Its ids and masks of many prompts in many scripts are compared with those of the runtime. Raises UserError where
    transformers cannot open it, where it is no CLIP tokenizer, and at the first prompt that differs.
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
    """The tokenizer of a bundle's runtime, made of the same vocabulary, merges and added tokens."""
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
    """Write vocab.json and merges.txt into `out`: the folder's own files, bytes and all, where they say the same as
    docs/BUNDLE.md reads them, and so have neither carriage returns nor a key twice."""
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
    """The sha256 (hex) over the names and contents of the files of a tokenizer."""
    total = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _open(folder: Path, class_name: str) -> Any:
    """transformers' tokenizer. Raises UserError with the file that it cannot read, where one can be found."""
    try:
        return getattr(transformers, class_name).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the loader raises whatever the line that fails raises, down to plain Exception
        for file in (folder / name for name in sorted(VOCABULARY_FILES)):
            if file.is_file():
                read_json(file) if file.suffix == ".json" else read_text_file(file)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{folder}: transformers cannot open it as {class_name} ({reason})") from None


def _read(folder: Path, theirs: Any) -> ClipTokenizer:
    """What transformers' tokenizer is made of. Raises UserError where the runtime cannot be made of the same."""
    model = _model(folder, theirs)
    for side in ("padding_side", "truncation_side"):
        if getattr(theirs, side) != "right":
            config = folder / "tokenizer_config.json"
            raise UserError(f"{config}: {side} {getattr(theirs, side)!r} is not supported; 'right' is")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    if wrong := [merge for merge in merges if merge.count(" ") != 1]:
        raise UserError(f"{folder} is no CLIP tokenizer: it merges {wrong[0]!r}, and CLIP's tokens hold no spaces")
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
        gives_mask="attention_mask" in theirs.model_input_names,
    )


def _model(folder: Path, theirs: Any) -> dict[str, Any]:
    """The byte-pair model inside transformers' tokenizer."""
    backend = getattr(theirs, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{folder}: transformers {transformers.__version__} opens it by code of its own: install 5.0")
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    kind, end = model.get("type"), model.get("end_of_word_suffix")
    if kind != "BPE" or end != "</w>":
        raise UserError(f"{folder} is no CLIP tokenizer: it is a {kind} that ends words with {end!r}")
    if not model["vocab"] or backend.normalizer is None:
        missing = "normalizer" if model["vocab"] else "vocabulary"
        raise UserError(f"{folder} is no CLIP tokenizer: it has no {missing}")
    return model


def _max_length(folder: Path, length: object) -> int:
    """Tokens of a prompt, as diffusers' pipeline asks for them: model_max_length, whatever the text encoder takes."""
    config = folder / "tokenizer_config.json"
    mend = "set it to the text encoder's max_position_embeddings, 77 for CLIP"
    if not isinstance(length, int) or isinstance(length, bool):
        raise UserError(f"{config}: model_max_length {length!r} is no whole number: {mend}")
    if length > _LONGEST:
        said = json.loads(config.read_text(encoding="utf-8"))
        names = [name for name in ("model_max_length", "max_len") if name in said]
        what = f"{names[0]} {said[names[0]]} is no length of a prompt" if names else "model_max_length is missing"
        raise UserError(f"{config}: {what}: {mend}")
    if length < 2:
        raise UserError(f"{config}: model_max_length {length} leaves no room for beginning and end: {mend}")
    return length


def _special_id(folder: Path, theirs: Any, kind: str) -> int:
    """The id of "bos", "eos" or "pad". Raises UserError where the tokenizer has none."""
    number = getattr(theirs, f"{kind}_token_id")
    if number is None:
        raise UserError(f"{folder / 'tokenizer_config.json'}: {kind}_token is missing, and every prompt needs its id")
    return int(number)


def _added(folder: Path, theirs: Any) -> tuple[AddedToken, ...]:
    """The added tokens, and for each that stands for several vectors the text that diffusers writes for it.

    Raises UserError where two are the same once they are normalized: of those transformers takes one by chance.
    """
    found = sorted(theirs.added_tokens_decoder.items())
    alike: dict[str, str] = {}
    for token in (token for _, token in found if token.normalized):
        other = alike.setdefault(theirs.backend_tokenizer.normalizer.normalize_str(token.content), token.content)
        if other != token.content:
            raise UserError(
                f"{folder}: the added tokens {other!r} and {token.content!r} differ in nothing that is looked at, and "
                f"transformers takes either by chance: take one of them away"
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
    """`text`, `text`_1, `text`_2, ..., as far as they are added tokens; "" where the first alone is.

    Source: diffusers' TextualInversionLoaderMixin._maybe_convert_prompt.
    """
    vectors = [text]
    while f"{text}_{len(vectors)}" in texts:
        vectors.append(f"{text}_{len(vectors)}")
    return " ".join(vectors) if len(vectors) > 1 else ""


def _compare(found: ClipTokenizer, theirs: Any) -> None:
    """Raises UserError at the first prompt of which the runtime has other ids or another mask."""
    ours = runtime_tokenizer(found)
    for prompt in probes(found.added):
        written = _expand(theirs, prompt, found.added)
        try:
            wanted = theirs(written, padding="max_length", max_length=found.max_length, truncation=True)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{found.folder}: transformers cannot encode {prompt!r} with it ({reason})") from None
        given = encode(ours, prompt)
        mask = wanted.get("attention_mask", given.mask[0].tolist())
        if wanted["input_ids"] != given.ids[0].tolist() or mask != given.mask[0].tolist():
            raise UserError(
                f"{found.folder} is no CLIP tokenizer that the runtime has: of the prompt {prompt!r} transformers' "
                f"{type(theirs).__name__} makes other token ids"
            )


def _expand(theirs: Any, prompt: str, added: Iterable[AddedToken]) -> str:
    """As diffusers' pipeline does before it asks the tokenizer."""
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
