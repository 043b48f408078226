"""Run the conformance vectors of a bundle against a reader: the runtime's own, or, in tests, one with a mistake in it.

The vectors and their kinds are described in vectors.py."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.json_files import one_line, parse
from pocketdiffusion.runtime.bundle.manifest import Tokenizer as Settings
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.pipeline import find_table, guide, open_tokenizers, scale_posterior, unscale_latents
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable, advance, first_latents
from pocketdiffusion.runtime.tokenizer import Tokenizer, Tokens, encode, read_merges
from pocketdiffusion.runtime.verify.check import Check, Tolerance
from pocketdiffusion.runtime.verify.metrics import Comparison, measure
from pocketdiffusion.runtime.verify.vectors import Case, Vector, find_arrays, read_vectors

Latents = NDArray[np.float32]
History = tuple[Latents, ...]


@dataclass(frozen=True)
class Reader:
    """The functions of a reader that vectors test, for one bundle."""

    encode: Callable[[str], Tokens]
    encode_text: Callable[[str], list[int]]  # ids of the text, without beginning and end token
    vocabulary: Callable[[], dict[str, int]]
    merges: Callable[[], list[str]]
    draw: Callable[[int, list[int]], list[Latents]]  # seed, sizes: the successive draws of these sizes
    table: Callable[[str, int, int], StepTable]
    first: Callable[[StepTable, Latents, Latents | None], Latents]
    advance: Callable[[Step, Latents, Latents, History, Latents | None], tuple[Latents, History]]
    guide: Callable[[Latents, Latents, float], Latents]
    unscale: Callable[[Latents], Latents]
    posterior: Callable[[Latents, Latents], Latents]
    from_uint8: Callable[[NDArray[np.uint8]], Latents]
    to_uint8: Callable[[Latents], NDArray[np.uint8]]
    others: tuple["Reader", ...] = ()  # one for each further tokenizer of the bundle

    def of(self, case: Case) -> "Reader":
        """Return the reader with the tokenizer of a case. Raise ValueError if there is no such tokenizer."""
        number = int(case.numbers.get("tokenizer", 1))
        if not 1 <= number <= 1 + len(self.others):
            raise ValueError(f"there is no tokenizer {number}")
        return (self, *self.others)[number - 1]


def own_reader(bundle: Bundle) -> Reader:
    """Return the runtime's own functions, with the files and numbers of the bundle."""
    first, *others = (
        _reader_with(bundle, tokenizer, settings)
        for tokenizer, settings in zip(open_tokenizers(bundle), bundle.manifest.tokenizers, strict=True)
    )
    return replace(first, others=tuple(others))


def _reader_with(bundle: Bundle, tokenizer: Tokenizer, settings: Settings) -> Reader:
    vocab, merges = bundle.folder / settings.vocab, bundle.folder / settings.merges

    def draw(seed: int, sizes: list[int]) -> list[Latents]:
        random = TorchRandom(seed)
        return [random.randn((size,)) for size in sizes]

    return Reader(
        encode=lambda prompt: encode(tokenizer, prompt),
        encode_text=lambda text: tokenizer.encoder.encode(text, add_special_tokens=False).ids,
        vocabulary=lambda: parse(vocab.read_bytes()),
        merges=lambda: read_merges(merges.read_bytes()),
        draw=draw,
        table=lambda sampler, steps, start: find_table(bundle, sampler, steps, start),
        first=first_latents,
        advance=advance,
        guide=lambda negative, positive, scale: guide(negative, positive, scale) if scale > 1 else positive,
        unscale=lambda latents: unscale_latents(bundle, latents),
        posterior=lambda parameters, noise: scale_posterior(bundle, parameters, noise),
        from_uint8=from_uint8,
        to_uint8=to_uint8,
    )


def judge_conformance(
    bundle: Bundle,
    reader: Reader | None = None,
    progress: Progress = lambda line: None,
    recomputed: Path | None = None,
) -> tuple[list[Verdict], dict[str, str]]:
    """Return a verdict for each vector of the bundle, whose subject is the vector's name, and {name: what a failure of
    this vector means}. `reader` None is the runtime's own. Both are empty if the bundle has no vectors. `recomputed` is
    a folder of vectors that the original libraries have just computed; verdicts on them are of the kind
    CONFORMANCE_AFRESH."""
    if not bundle.manifest.conformance:
        return [], {}
    vectors, raw = read_vectors(recomputed or bundle.folder)
    reader = reader or own_reader(bundle)
    reports = []
    for vector in vectors.vectors:
        progress(f"conformance: {vector.name}")
        report = judge_vector(vector, raw, reader)
        reports.append(report if recomputed is None else replace(report, rung=Kind.CONFORMANCE_AFRESH.value))
    return reports, {vector.name: vector.tells for vector in vectors.vectors}


def judge_vector(vector: Vector, raw: bytes, reader: Reader) -> Verdict:
    """Return the verdict on one vector. Raise ProofError if its kind is not known, or a case does not have the inputs
    that its kind needs."""
    run = _KINDS.get(vector.kind)
    if run is None:
        raise ProofError(
            f"the conformance vector {vector.name} has the unknown kind {vector.kind}: install a newer pocketdiffusion"
        )
    comparisons = []
    for case in vector.cases:
        given, expected = find_arrays(raw, case.arrays), find_arrays(raw, case.expected)
        try:
            results = list(run(reader, case, given, expected))
        except (UserError, KeyError, IndexError, ValueError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ProofError(
                f"conformance vector {vector.name}, case {case.label}, cannot be run ({reason}): export the model again"
            ) from error
        for label, reference, found in results:
            size = np.float32(np.abs(reference.astype(np.float32)).max(initial=0)) or np.float32(1)
            comparisons.append(
                Comparison(label, reference.astype(np.float32) / size, np.asarray(found, np.float32) / size)
            )
    return measure(vector.name, comparisons, Check(Kind.CONFORMANCE, Tolerance(vector.floor_db)))


Results = Iterator[tuple[str, Array, Array]]
Arrays = dict[str, Array]


def _tokens(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    tokens = reader.of(case).encode(case.texts["prompt"])
    yield f"ids of {case.label}", expected["ids"], tokens.ids[0]
    if "mask" in expected:
        yield f"mask of {case.label}", expected["mask"], tokens.mask[0]
    cut = np.frombuffer(tokens.truncated.encode("utf-8", "replace"), np.uint8)
    yield f"length of what is cut of {case.label}", np.array([len(expected["cut"]) + 1]), np.array([len(cut) + 1])
    if len(cut):
        yield f"what is cut of {case.label}", expected["cut"], cut


def _vocabulary(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    reader = reader.of(case)
    vocabulary = sorted(reader.vocabulary().items(), key=lambda item: item[1])
    yield "vocabulary", expected["vocabulary"], _sha256("".join(f"{token} {n}\n" for token, n in vocabulary).encode())
    yield "merges", expected["merges"], _sha256("".join(f"{merge}\n" for merge in reader.merges()).encode())
    yield (
        "entries",
        expected["entries"],
        _sha256(encode_entries([token for token, _ in vocabulary], reader.encode_text)),
    )


def encode_entries(tokens: list[str], encode_text: Callable[[str], list[int]]) -> bytes:
    """Return the ids of each entry's text, each followed by -1, as int32 little-endian. Entries that are not valid
    UTF-8 are left out."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    to_byte = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
    ids: list[int] = []
    for token in tokens:
        letters = token.removesuffix("</w>")
        try:
            text = bytes(to_byte[letter] for letter in letters).decode()
        except (KeyError, UnicodeDecodeError):
            continue
        ids += [*encode_text(text), -1]
    return np.array(ids, "<i4").tobytes()


def _sha256(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _noise(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    draws = reader.draw(int(case.texts["seed"]), given["sizes"].tolist())
    places = given["at"].tolist()
    values = [draw[at] for draw, at in ((draws[n], at) for n, at in zip(given["draw"].tolist(), places, strict=True))]
    yield case.label, expected["values"], np.array(values, np.float32)


def _start(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    sampler = case.texts["sampler"]
    for n, (steps, start) in enumerate(zip(given["steps"].tolist(), given["starts"].tolist(), strict=True)):
        table = reader.table(sampler, steps, start)
        found = reader.first(table, given["noise"], given.get("image"))
        yield f"{sampler}, {steps} steps from {start}", expected["latents"][n], found


def _run(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    sampler = case.texts["sampler"]
    for n, (steps, start) in enumerate(zip(given["steps"].tolist(), given["starts"].tolist(), strict=True)):
        every = [latents for _, _, latents in run_rows(reader, sampler, steps, start, given)[1]]
        label = f"{sampler}, {steps} steps from {start}"
        yield label, expected["latents"][n], every[-1]
        yield f"the mean of {label}", expected["means"][n], np.asarray(np.mean(every, axis=0, dtype=np.float64))


def _whole_run(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    sampler = case.texts["sampler"]
    rows = list(run_rows(reader, sampler, int(given["steps"][0]), int(given["starts"][0]), given)[1])
    timesteps, scaled, latents = (np.array([row[i] for row in rows], np.float32) for i in range(3))
    yield f"timesteps of {sampler}", expected["timesteps"] / 1000, timesteps / 1000
    yield f"scaled latents of {sampler}", expected["scaled"], scaled
    yield f"latents of {sampler}", expected["latents"], latents


def run_rows(
    reader: Reader, sampler: str, steps: int, start: int, given: Arrays
) -> tuple[Latents, Iterator[tuple[float, Latents, Latents]]]:
    """Return the latents before the first row, float32 [16], and an iterator over timestep, scaled latents and latents
    after each row. The model is the arithmetic that vectors.py describes."""
    table = reader.table(sampler, steps, start)
    first = reader.first(table, given["noise"][0], given.get("image"))
    return first, _rows(reader, table, first, given)


def _rows(
    reader: Reader, table: StepTable, latents: Latents, given: Arrays
) -> Iterator[tuple[float, Latents, Latents]]:
    history: History = ()
    for number, row in enumerate(table.rows):
        scaled = latents * np.float32(row.input_scale)
        output = given["outputs"][number] + np.float32(0.25) * scaled + np.float32(row.timestep / 1000)
        latents, history = reader.advance(row, latents, output, history, given["noise"][1 + number] if row.c else None)
        yield row.timestep, scaled, latents


def _guidance(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    yield case.label, expected["output"], reader.guide(given["negative"], given["positive"], case.numbers["guidance"])


def _decoder_scale(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    yield case.label, expected["decoder_latents"], reader.unscale(given["latents"])


def _posterior(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    yield case.label, expected["latents"], reader.posterior(given["parameters"], given["noise"])


def _picture_to_array(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    yield case.label, expected["array"], reader.from_uint8(given["picture"])


def _array_to_picture(reader: Reader, case: Case, given: Arrays, expected: Arrays) -> Results:
    yield case.label, expected["picture"], reader.to_uint8(given["array"])


_KINDS: dict[str, Callable[[Reader, Case, Arrays, Arrays], Results]] = {
    "tokens": _tokens,
    "vocabulary": _vocabulary,
    "noise": _noise,
    "start": _start,
    "run": _run,
    "whole_run": _whole_run,
    "guidance": _guidance,
    "decoder_scale": _decoder_scale,
    "posterior": _posterior,
    "picture_to_array": _picture_to_array,
    "array_to_picture": _array_to_picture,
}
