"""Conformance vectors of the tokenizer, by transformers'."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from pocketdiffusion.export.checkpoints.tokenizer_files import ClipTokenizer, digest
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.conformance import encode_entries
from pocketdiffusion.runtime.verify.prompts import PROMPTS, added_prompts
from pocketdiffusion.runtime.verify.questions import EXACT_DB
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector


def token_vectors(source: ClipTokenizer, class_name: str, arrays: Arrays, number: int = 1) -> tuple[Vector, ...]:
    """Return the vectors of the bundle's tokenizer `number`: ids, masks and cut ends of prompts, and the vocabulary as
    transformers loaded it."""
    found = _token_vectors(source, class_name, arrays)
    return found if number == 1 else tuple(_of_tokenizer(vector, number) for vector in found)


def _of_tokenizer(vector: Vector, number: int) -> Vector:
    cases = tuple(case.model_copy(update={"numbers": {"tokenizer": float(number)}}) for case in vector.cases)
    return vector.model_copy(update={"name": f"{vector.name}, tokenizer {number}", "cases": cases})


def _token_vectors(source: ClipTokenizer, class_name: str, arrays: Arrays) -> tuple[Vector, ...]:
    theirs = _open(source.folder, digest(source.folder), class_name)
    vectors = [
        _prompts(source, theirs, f"prompts, {name}", tells, prompts, arrays)
        for name, (tells, prompts) in PROMPTS.items()
    ]
    added = tuple(added_prompts([token.text for token in source.added]))
    if added:
        tells = (
            "the added tokens of the manifest are looked for first, the longest at each place, with their flags; one "
            "of several vectors is written out beforehand"
        )
        vectors.append(_prompts(source, theirs, "prompts, added tokens", tells, added, arrays))
    digests = _digests(source.folder, digest(source.folder), class_name)
    vectors.append(
        Vector(
            name="vocabulary",
            kind="vocabulary",
            tells="vocab.json or merges.txt is not the checkpoint's: an entry is changed, or two merges are swapped; "
            "or entries are not encoded as transformers does",
            floor_db=EXACT_DB,
            cases=(
                Case(
                    label="vocabulary",
                    expected={
                        name: arrays.add(np.frombuffer(bytes.fromhex(text), np.uint8)) for name, text in digests.items()
                    },
                ),
            ),
        )
    )
    return tuple(vectors)


def _prompts(
    source: ClipTokenizer, theirs: Any, name: str, tells: str, prompts: tuple[str, ...], arrays: Arrays
) -> Vector:
    cases = []
    for prompt in prompts:
        expected = {key: arrays.add(array) for key, array in _encode(source, theirs, prompt).items()}
        label = repr(prompt if len(prompt) <= 60 else f"{prompt[:56]}...")
        cases.append(Case(label=label, texts={"prompt": prompt}, expected=expected))
    return Vector(name=name, kind="tokens", tells=tells, floor_db=EXACT_DB, cases=tuple(cases))


def _encode(source: ClipTokenizer, theirs: Any, prompt: str) -> dict[str, Array]:
    """Return ids, mask and `cut` as diffusers' pipeline computes them; `cut` is the end that its warning about long
    prompts shows, as it was typed."""
    for token in dict.fromkeys(theirs.tokenize(prompt, verbose=False)):
        for added in source.added:
            if added.text == token and added.expansion:
                prompt = prompt.replace(token, added.expansion)
    given = theirs(prompt, padding="max_length", max_length=source.max_length, truncation=True)
    offsets = theirs(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    room = source.max_length - 2
    cut = prompt[offsets[room][0] :] if len(offsets) > room else ""
    found: dict[str, Array] = {
        "ids": np.array(given["input_ids"], np.int32),
        "cut": np.frombuffer(cut.encode(), np.uint8),
    }
    if "attention_mask" in given:
        found["mask"] = np.array(given["attention_mask"], np.int32)
    return found


@lru_cache(maxsize=4)
def _open(folder: Path, sha256: str, class_name: str) -> Any:
    return getattr(transformers, class_name).from_pretrained(str(folder), local_files_only=True)


@lru_cache(maxsize=4)
def _digests(folder: Path, sha256: str, class_name: str) -> dict[str, str]:
    """Return the digests that docs/BUNDLE.md (section 12) defines, of the vocabulary that transformers loaded."""
    backend = _open(folder, sha256, class_name).backend_tokenizer
    model = json.loads(backend.to_str())["model"]
    entries = sorted(model["vocab"].items(), key=lambda item: item[1])
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    contents = {
        "vocabulary": "".join(f"{token} {number}\n" for token, number in entries).encode(),
        "merges": "".join(f"{merge}\n" for merge in merges).encode(),
        "entries": encode_entries(
            [token for token, _ in entries], lambda text: list(backend.encode(text, add_special_tokens=False).ids)
        ),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
