"""characters.json is what the reference library does to characters, and is all of Unicode that a tokenizer needs."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.table_tokenizer import Characters, compose, encode, normalize, read_characters, read_tokenizer
from test_tokenizer import BOS, EOS, GOLDEN, load, mark
from tokenizers import normalizers

from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.characters import CHARACTERS, EVERY, make_tables
from pocketdiffusion.runtime.tokenizer import load_tokenizer

TABLES: dict[str, Any] = json.loads(CHARACTERS.read_text(encoding="ascii"))
ASSIGNED = [
    point for point in EVERY if point < 0x33480 or 0xE0000 <= point < 0xE0200
]  # beyond them lie private use and unassigned planes


def test_the_file_is_small() -> None:
    assert CHARACTERS.stat().st_size < 80_000


@pytest.mark.parametrize(
    "points", [pytest.param(ASSIGNED, id="assigned"), pytest.param(EVERY, id="every", marks=pytest.mark.slow)]
)
def test_is_what_the_library_does_to_every_code_point(points: Sequence[int]) -> None:
    """Else: python -m pocketdiffusion.runtime.characters, and say in CHANGELOG.md that tokens changed."""
    for name, table in make_tables(points).items():
        assert table == TABLES[name], name


@pytest.fixture(scope="module")
def characters() -> Characters:
    return read_characters(TABLES)


def test_white_space_is_unicodes(characters: Characters) -> None:
    """Not a regular expression's of JavaScript (has U+FEFF, lacks U+0085), ICU (lacks U+0085), Python (has U+001C)."""
    assert len(characters.spaces) == 25
    assert {"\u0085", "\u00a0", "\u2028", "\u3000"} <= characters.spaces
    assert not {"\ufeff", "\u200b", "\u001c", "\u180e"} & characters.spaces


def test_normalizes_as_the_library(characters: Characters) -> None:
    """Every character that any table names, alone and among others of all kinds in random order."""
    reference = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    named = sorted(
        {
            *characters.lower,
            *characters.classes,
            *characters.decompositions,
            *map("".join, characters.compositions),
            *"\u1100\u1161\u11a7\u11a8\u11c2\u11c3\uac00\uac01\ud7a3\u1112\u1175\u03a3\u0130I\u0378\ue000\U000f0000",
        }
    )
    generator = random.Random(5)
    marks = sorted(characters.classes)
    hangul = "\u1100\u1112\u1113\u1161\u1175\u1176\u11a7\u11a8\u11c2\u11c3\uac00\uac01\ud7a3"
    texts = [*named]
    texts += ["".join(generator.choices(named, k=8)) for _ in range(2000)]
    texts += ["".join(["e", *generator.choices(marks, k=4), "\u0327"]) for _ in range(2000)]
    texts += ["".join(generator.choices(hangul, k=5)) for _ in range(1000)]
    wanted = reference.normalize_str("\n".join(texts)).split("\n")
    for text, expected in zip(texts, wanted, strict=True):
        found = "".join(characters.lower.get(character, character) for character in compose(characters, text))
        assert found == expected, [hex(ord(character)) for character in text]


@pytest.mark.parametrize(("kind", "pad_id"), [("clip", EOS), ("sd2", 0)])
def test_the_tables_are_enough_for_the_golden_prompts(
    kind: str, pad_id: int, tokenizer_folder: Path, characters: Characters
) -> None:
    marks = {BOS: "<|startoftext|>", EOS: "<|endoftext|>", 0: "!"}
    ours = read_tokenizer(
        tokenizer_folder, characters, [mark(marks[number], number) for number in sorted({BOS, EOS, pad_id})]
    )
    cases = [case for case in GOLDEN["cases"] if case["kind"] == kind]
    assert len(cases) >= 200
    for case in cases:
        assert [BOS, *encode(ours, case["prompt"])[:75], EOS] == case["ids"], case["prompt"]


def test_the_tables_are_enough_for_added_tokens(tokenizer_folder: Path, characters: Characters) -> None:
    """With every flag, beside each other and at characters of all kinds."""

    def token(text: str, number: int, **flags: bool) -> AddedToken:
        return mark(text, number).model_copy(update=flags)

    added = [
        mark("<|startoftext|>", BOS),
        mark("<|endoftext|>", EOS),
        token("<cat>", 49408),
        token("<cat>-toy", 49409),
        token("Néon Toy", 49410, normalized=True, special=False),
        token("wörd", 49411, single_word=True, normalized=True, special=False),
        token("[L]", 49412, lstrip=True),
        token("[R]", 49413, rstrip=True),
        token("[W]", 49414, single_word=True, lstrip=True, rstrip=True),
    ]
    library = load_tokenizer(
        tokenizer_folder / "vocab.json",
        tokenizer_folder / "merges.txt",
        max_length=77,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=EOS,
        added=added,
    )
    ours = read_tokenizer(tokenizer_folder, characters, added)
    pieces = [t.text for t in added] + [
        "ne\u0301on  toy",
        "WÖRD",
        "\u00a0",
        " ",
        "\u0085",
        "\ufeff",
        "x",
        "7",
        "_",
        "²",
    ]
    pieces += [
        "\u0301",
        "ⓐ",
        "'s",
        "!",
        "猫",
        "İ",
        "Σ",
        "\u200d",
        "\ue000",
        "\u0378",
        "ᾼ",
        "<",
        "가\u11a8",
        "\U0001f600",
    ]
    generator = random.Random(3)
    for _ in range(600):
        prompt = "".join(generator.choices(pieces, k=generator.randint(1, 7)))
        expected = library.encoder.encode(prompt, add_special_tokens=False).ids
        assert encode(ours, prompt) == expected, prompt


def test_every_letter_and_digit_gets_the_librarys_ids(tokenizer_folder: Path, characters: Characters) -> None:
    """The first and the last of each range, and their neighbours outside."""
    library, ours = load(tokenizer_folder), read_tokenizer(tokenizer_folder, characters, [])
    ends = [point for name in ("letters", "digits", "spaces") for point in TABLES[name]]
    points = sorted({point + shift for point in ends for shift in (-1, 0, 1)} - set(range(0xD800, 0xE000)))
    for begin in range(0, len(points), 40):
        prompt = "".join(f"a{chr(point)}'s{chr(point)}{chr(point)}1" for point in points[begin : begin + 40])
        expected = library.encoder.encode(prompt, add_special_tokens=False).ids
        assert encode(ours, prompt) == expected, hex(points[begin])


@pytest.mark.parametrize(
    "mistake", ["final sigma", "Turkish i", "\\s of JavaScript", "no compositions", "ASCII letters"]
)
def test_a_readers_own_tables_are_found(mistake: str, tokenizer_folder: Path, characters: Characters) -> None:
    """The comparison above can fail: each of these gives other ids for one of the golden prompts, or other text."""
    changes: dict[str, dict[str, Any]] = {
        "final sigma": {"lower": {**characters.lower, "Σ": "ς"}},
        "Turkish i": {"lower": {**characters.lower, "I": "ı"}},
        "\\s of JavaScript": {"spaces": characters.spaces - {"\u0085"} | {"\ufeff"}},
        "no compositions": {"compositions": {}},
        "ASCII letters": {"letters": frozenset("abcdefghijklmnopqrstuvwxyz")},
    }
    wrong = replace(characters, **changes[mistake])
    added = [mark("<|startoftext|>", BOS), mark("<|endoftext|>", EOS)]
    ours = read_tokenizer(tokenizer_folder, wrong, added)
    cases = [case for case in GOLDEN["cases"] if case["kind"] == "clip"]
    assert any([BOS, *encode(ours, case["prompt"])[:75], EOS] != case["ids"] for case in cases)


def test_lower_case_looks_at_no_neighbour(characters: Characters) -> None:
    assert normalize(characters, "ΣΊΣΥΦΟΣ İI  \u0085ẞ") == "σίσυφοσ i̇i ß"
