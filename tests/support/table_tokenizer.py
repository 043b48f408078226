"""CLIP's tokenizer from a bundle's files alone: characters.json, vocab.json, merges.txt and the manifest's settings.

No library and no table of Python's own is asked about a character, so what this reads is all that a reader needs. It is
written to be short, not fast.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.bundle.manifest import AddedToken

ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
MARKS = {"<|startoftext|>": ("<|", "startoftext", "|>"), "<|endoftext|>": ("<|", "endoftext", "|>")}


@dataclass(frozen=True)
class Characters:
    letters: frozenset[str]
    digits: frozenset[str]
    spaces: frozenset[str]
    words: frozenset[str]
    lower: dict[str, str]
    classes: dict[str, int]
    decompositions: dict[str, str]
    compositions: dict[tuple[str, str], str]


@dataclass(frozen=True)
class TableTokenizer:
    characters: Characters
    vocab: dict[str, int]
    ranks: dict[tuple[str, str], int]
    added: Sequence[AddedToken]
    unk_id: int | None = None


def read_characters(tables: dict[str, Any]) -> Characters:
    def members(name: str) -> frozenset[str]:
        ends = tables[name]
        return frozenset(chr(p) for i in range(0, len(ends), 2) for p in range(ends[i], ends[i + 1] + 1))

    lower, classes, pairs = tables["lower"], tables["classes"], tables["compositions"]
    return Characters(
        letters=members("letters"),
        digits=members("digits"),
        spaces=members("spaces"),
        words=members("words"),
        lower={
            chr(point): chr(point + lower[i + 3])
            for i in range(0, len(lower), 4)
            for point in range(lower[i], lower[i + 1] + 1, lower[i + 2])
        }
        | {chr(first): "".join(map(chr, rest)) for first, *rest in tables["lower_several"]},
        classes={
            chr(p): classes[i + 2] for i in range(0, len(classes), 3) for p in range(classes[i], classes[i + 1] + 1)
        },
        decompositions={chr(first): "".join(map(chr, rest)) for first, *rest in tables["decompositions"]},
        compositions={(chr(pairs[i]), chr(pairs[i + 1])): chr(pairs[i + 2]) for i in range(0, len(pairs), 3)},
    )


def read_tokenizer(
    folder: Path, characters: Characters, added: Sequence[AddedToken], unk_id: int | None = None
) -> TableTokenizer:
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = (line.split(" ") for line in lines if line and not line.startswith("#version"))
    return TableTokenizer(characters, vocab, {(a, b): rank for rank, (a, b) in enumerate(pairs)}, added, unk_id)


def encode(tokenizer: TableTokenizer, prompt: str) -> list[int]:
    """The ids of the text, without beginning, end and padding. `expansion` is not looked at."""
    ids = []
    for stretch in _find(tokenizer, prompt, [token for token in tokenizer.added if not token.normalized]):
        if isinstance(stretch, int):
            ids.append(stretch)
            continue
        normalized = normalize(tokenizer.characters, stretch)
        for part in _find(tokenizer, normalized, [token for token in tokenizer.added if token.normalized]):
            ids += [part] if isinstance(part, int) else _encode_words(tokenizer, part)
    return ids


def _find(tokenizer: TableTokenizer, text: str, added: Sequence[AddedToken]) -> Iterator[str | int]:
    """`text` cut into the ids of added tokens and the stretches between them."""
    spaces, words = tokenizer.characters.spaces, tokenizer.characters.words
    spelled = {
        normalize(tokenizer.characters, token.text) if token.normalized else token.text: token
        for token in sorted(added, key=lambda token: token.id)
    }
    begin = at = 0
    while at < len(text):
        found = max((spelling for spelling in spelled if text.startswith(spelling, at)), key=len, default="")
        end, token = at + len(found), spelled.get(found)
        around = text[at - 1 : at] + text[end : end + 1] if at else text[end : end + 1]
        if token is None or (token.single_word and any(character in words for character in around)):
            at += len(found) or 1
            continue
        while token.lstrip and at > begin and text[at - 1] in spaces:
            at -= 1
        while token.rstrip and end < len(text) and text[end] in spaces:
            end += 1
        if at > begin:
            yield text[begin:at]
        yield token.id
        begin = at = end
    if begin < len(text):
        yield text[begin:]


def normalize(characters: Characters, text: str) -> str:
    """NFC; one space for each run of white space; each character in lower case."""
    out = []
    for character in compose(characters, text):
        if character not in characters.spaces:
            out.append(characters.lower.get(character, character))
        elif not out or out[-1] != " ":
            out.append(" ")
    return "".join(out)


def compose(characters: Characters, text: str) -> str:
    """Unicode's normalization form C, as runtime/characters.py words it."""
    sequence: list[str] = []
    for character in text:
        syllable = ord(character) - 0xAC00
        if 0 <= syllable < 19 * 21 * 28:
            sequence += [chr(0x1100 + syllable // 588), chr(0x1161 + syllable % 588 // 28)]
            sequence += [chr(0x11A7 + syllable % 28)] if syllable % 28 else []
        else:
            sequence += characters.decompositions.get(character, character)

    def kind(character: str) -> int:
        return characters.classes.get(character, 0)

    begin = 0
    for end in range(len(sequence) + 1):
        if end == len(sequence) or kind(sequence[end]) == 0:
            sequence[begin:end] = sorted(sequence[begin:end], key=kind)
            begin = end + 1

    out: list[str] = []
    starter = -1  # its place in `out`
    for character in sequence:
        # Marks that stayed lie in order of their class, so the last has the greatest.
        blocked = starter < 0 or (starter < len(out) - 1 and kind(out[-1]) >= kind(character))
        joined = None if blocked else _join(characters, out[starter], character)
        if joined is not None:
            out[starter] = joined
            continue
        out.append(character)
        if kind(character) == 0:
            starter = len(out) - 1
    return "".join(out)


def _join(characters: Characters, first: str, second: str) -> str | None:
    lead, vowel, tail = ord(first) - 0x1100, ord(second) - 0x1161, ord(second) - 0x11A7
    syllable = ord(first) - 0xAC00
    if 0 <= lead < 19 and 0 <= vowel < 21:
        return chr(0xAC00 + (lead * 21 + vowel) * 28)
    if 0 <= syllable < 19 * 21 * 28 and syllable % 28 == 0 and 0 < tail < 28:
        return chr(ord(first) + tail)
    return characters.compositions.get((first, second))


def split(characters: Characters, text: str) -> Iterator[str]:
    """The words of normalized text: at each place the first of these that is there. A mark that is spelled out; an
    English ending; a run of letters; one digit; a run of what is neither letter, digit nor white space. A mark falls
    into three words, and no run goes on behind it."""
    at = 0
    while at < len(text):
        mark = next((mark for mark in MARKS if text.startswith(mark, at)), None)
        if mark is not None:
            yield from MARKS[mark]
            at += len(mark)
            continue
        ending = next((ending for ending in ENDINGS if text.startswith(ending, at)), None)
        end = at + (1 if ending is None else len(ending))
        if ending is None and text[at] in characters.letters:
            while end < len(text) and text[end] in characters.letters:
                end += 1
        elif ending is None and text[at] not in characters.digits and text[at] not in characters.spaces:
            kinds = characters.letters, characters.digits, characters.spaces
            while end < len(text) and not any(text[end] in kind for kind in kinds):
                end += 1
        if text[at] not in characters.spaces:
            yield text[at:end]
        at = end


def _encode_words(tokenizer: TableTokenizer, text: str) -> list[int]:
    ids = []
    for word in split(tokenizer.characters, text):
        for part in merge(tokenizer, word):
            number = tokenizer.vocab.get(part, tokenizer.unk_id)
            if number is not None:
                ids.append(number)
    return ids


def _byte_letters() -> dict[int, str]:
    """A printable character for each byte: itself where it is one, else from U+0100 on, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


BYTE_LETTERS = _byte_letters()


def merge(tokenizer: TableTokenizer, word: str) -> list[str]:
    """The tokens of a word: its UTF-8 bytes, the last with "</w>"; then, as long as there is one, the pair whose merge
    comes first in the file, at its leftmost place."""
    parts = [BYTE_LETTERS[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
        ranked = [(tokenizer.ranks.get(pair, len(tokenizer.ranks)), at) for at, pair in enumerate(pairwise(parts))]
        rank, at = min(ranked)
        if rank == len(tokenizer.ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
