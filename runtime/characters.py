"""Make characters.json: the tables of Unicode that CLIP's tokenizer needs, from the library that the reference uses.

    python -m pocketdiffusion.runtime.characters

Every operating system and language has its own version of Unicode's tables, and its own idea of what white space or
lower case is. A reader of a bundle reads them from this file instead, and gets the ids of the reference everywhere.

All numbers are code points. Surrogates (U+D800 to U+DFFF) are not text: a reader puts U+FFFD in place of a lone one.

    letters, digits   [first, last, first, last, ...]: the ranges, both ends included, of \\p{L} and \\p{N} in the
                      expression that cuts a prompt into words. Unassigned and private code points are in neither.
    spaces            likewise: \\s of that expression, which is Unicode's White_Space: 25 code points, U+0009 to
                      U+000D, U+0020, U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000.
                      U+FEFF, U+200B and U+001C to U+001F, which some languages count, are not among them; U+0085 is.
    words             likewise: \\w, which an added token of `single_word` must not touch
    lower             [first, last, step, difference, ...]: first, first + step, ..., last become lower case by adding
                      the difference. No rule depends on the neighbours of a character (no final sigma) or on a
                      language (no Turkish i).
    lower_several     [[character, its lower case of several code points ...], ...]: only U+0130
    classes           [first, last, combining class, ...]: the characters whose class is not 0
    decompositions    [[character, its full canonical decomposition ...], ...], Hangul syllables aside
    compositions      [first, second, composite, ...], Hangul syllables aside

Unicode's normalization form C: (1) replace each character by its decomposition; (2) in each run of characters whose
class is not 0, sort by class and keep the order of equal classes; (3) from left to right, a character whose class is 0
becomes the starter, until the next such character; each later character is joined with the starter if `compositions`
has the pair and no character that is left between them has a class of 0 or a class at least as great as the
character's own. The composite is then the starter, and the character is removed. A starter can itself be joined with
the starter directly before it. Classes and decompositions of this file come from an older Unicode than its letters.
Hangul syllables: s = U+AC00 + (l * 21 + v) * 28 + t is U+1100 + l, U+1161 + v and, where t > 0, U+11A7 + t (l < 19, v <
21, t < 28); in step 3 U+1100 + l and U+1161 + v are joined, and such a syllable of t = 0 with U+11A7 + t, 0 < t < 28.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers

CHARACTERS = Path(__file__).with_name("characters.json")
EVERY = [*range(0xD800), *range(0xE000, 0x110000)]
HANGUL = range(0xAC00, 0xD7A4)
HIGHEST = 0x345  # its class is 240: a mark of any other class that is not 0 is sorted before it


def make_tables(points: Sequence[int] = EVERY) -> dict[str, Any]:
    """Return the content of characters.json for `points` (ascending): how the library treats each code point."""
    text = "".join(map(chr, points))
    lower = {point: lowered for point in points if (lowered := _code_points(_LOWER(chr(point)))) != [point]}
    full = {p: mapped for p in points if p not in HANGUL and (mapped := _code_points(_NFD(chr(p)))) != [p]}
    return {
        "letters": _ranges(_matching(r"\P{L}+", text)),
        "digits": _ranges(_matching(r"\P{N}+", text)),
        "spaces": _ranges(_matching(r"\S+", text)),
        "words": _ranges(_word_characters(points)),
        "lower": _differences({point: mapped[0] for point, mapped in lower.items() if len(mapped) == 1}),
        "lower_several": [[point, *mapped] for point, mapped in lower.items() if len(mapped) > 1],
        "classes": _classes(points),
        "decompositions": [[point, *mapped] for point, mapped in full.items()],
        "compositions": [n for point, mapped in full.items() for n in _composition(point, mapped)],
    }


_LOWER = normalizers.Lowercase().normalize_str
_NFC = normalizers.NFC().normalize_str
_NFD = normalizers.NFD().normalize_str


def _code_points(text: str) -> list[int]:
    return [ord(character) for character in text]


def _matching(others: str, text: str) -> list[int]:
    """Return the code points of `text` that the expression `others` does not match."""
    return _code_points(normalizers.Replace(Regex(others), "").normalize_str(text))


def _word_characters(points: Sequence[int]) -> list[int]:
    """Return the code points that an added token of `single_word` must not touch."""
    tokenizer = Tokenizer(models.BPE({"<t>": 0}, []))
    tokenizer.add_tokens([AddedToken("<t>", single_word=True, normalized=False)])
    parted = {begin for begin, _ in tokenizer.encode("".join(f"{chr(point)}<t>\n" for point in points)).offsets}
    return [point for place, point in enumerate(points) if 5 * place + 1 not in parted]


def _classes(points: Sequence[int]) -> list[int]:
    """Return [first, last, class, ...]. The library has no function for the class, so it is derived from how the
    library sorts each character behind a mark of each class of Unicode."""

    def sorted_before(mark: int, candidates: Iterable[int]) -> set[int]:
        candidates = [point for point in candidates if point != mark]
        normalized = _NFD("".join(f"a{chr(mark)}{chr(point)}\n" for point in candidates)).split("\n")
        return {p for p, line in zip(candidates, normalized, strict=False) if line == f"a{chr(p)}{chr(mark)}"}

    rest = sorted_before(HIGHEST, (point for point in points if point != 0x0A and _NFD(chr(point)) == chr(point)))
    marks: dict[int, int] = {}
    for point in sorted(rest):
        marks.setdefault(unicodedata.combining(chr(point)), point)
    found = {HIGHEST: 240} if HIGHEST in points else {}
    for number in sorted(marks, reverse=True):
        before = sorted_before(marks[number], rest)
        found |= dict.fromkeys(rest - before, number)
        rest = before
    assert not rest, "a class that Python does not know"
    runs: list[int] = []
    for point, number in sorted(found.items()):
        if runs and (runs[-2], runs[-1]) == (point - 1, number):
            runs[-2] = point
        else:
            runs += [point, point, number]
    return runs


def _composition(point: int, full: Sequence[int]) -> list[int]:
    """Return [first, second, point], or [] if the library does not compose that character."""
    if len(full) < 2 or _NFC("".join(map(chr, full))) != chr(point):
        return []
    first = _code_points(_NFC("".join(map(chr, full[:-1]))))
    return [*first, full[-1], point] if len(first) == 1 else []


def _ranges(points: Iterable[int]) -> list[int]:
    found: list[int] = []
    for point in points:
        if found and found[-1] == point - 1:
            found[-1] = point
        else:
            found += [point, point]
    return found


def _differences(lower: dict[int, int]) -> list[int]:
    """Return [first, last, step, difference, ...]."""
    runs: list[list[int]] = []
    for point, lowered in lower.items():
        run = runs[-1] if runs else [0, 0, 0, 0]
        step = point - run[1]
        if run[3] == lowered - point and step in ((1, 2) if run[0] == run[1] else (run[2],)):
            run[1:3] = [point, step]
        else:
            runs.append([point, point, 1, lowered - point])
    return [number for run in runs for number in run]


def write_tables(path: Path) -> None:
    """Write characters.json to `path`, one table per line."""
    tables = make_tables()
    lines = (f"{json.dumps(name)}: {json.dumps(table, separators=(',', ':'))}" for name, table in tables.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    write_tables(CHARACTERS)
