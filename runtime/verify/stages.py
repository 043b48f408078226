"""Checks of the parts of the pipeline that are not graphs. Each gets the original's own values, so that its verdict
blames this part only."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.pipeline import find_table, latents_shape, open_tokenizers, unscale_latents
from pocketdiffusion.runtime.program import (
    DECODE,
    DENOISE,
    ENCODE_IMAGE,
    ENCODE_PROMPT,
    HALVES,
    ZEROS,
    Stage,
    graphs_of,
    names_of,
    text_to_image,
)
from pocketdiffusion.runtime.program_run import evaluate
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.step_table import advance
from pocketdiffusion.runtime.tokenizer import encode
from pocketdiffusion.runtime.vae_tiles import cut_tiles
from pocketdiffusion.runtime.verify.golden_cases import compare_cases
from pocketdiffusion.runtime.verify.metrics import Comparison, Tally, measure
from pocketdiffusion.runtime.verify.recording import (
    Case,
    Trajectory,
    guided_outputs,
    halves_of,
    recorded,
    recorded_picture,
    recorded_tiles,
)
from pocketdiffusion.runtime.verify.step_tables import compare_step_tables
from pocketdiffusion.runtime.verify.tiles import judge_tiles
from pocketdiffusion.runtime.verify.tolerances import EXACT_DB, NOISE_DB, SAMPLER_DB, check_stage


def judge_stages(bundle: Bundle, trajectories: Sequence[Trajectory]) -> list[Verdict]:
    """Return the verdicts on the parts of the pipeline that are not graphs: tokenizer, characters, program, noise,
    step_tables, timesteps, sampler, vae_scale, image, golden_cases, and of tiles what `judge_tiles` returns.

    A part of which nothing was recorded is left out, such as the tokenizer of a model without prompts. step_tables
    compares all tables of the bundle with the samplers' own, each number relative to its size, since the recordings use
    only one table. golden_cases compares the runtime part with the proof part, if the proof part is installed."""
    checks: tuple[tuple[str, float, Callable[[Bundle, Trajectory], Iterator[tuple[Array, Array]]]], ...] = (
        ("tokenizer", EXACT_DB, _tokenizer),
        ("characters", EXACT_DB, _characters),
        ("program", SAMPLER_DB, _program),
        ("noise", NOISE_DB, _noise),
        ("timesteps", SAMPLER_DB, _timesteps),
        ("sampler", SAMPLER_DB, _sampler),
        ("vae_scale", SAMPLER_DB, _vae_scale),
        ("image", EXACT_DB, _image),
    )
    verdicts = []
    for stage, floor, compare in checks:
        tally = Tally()
        for t in trajectories:
            for pair in compare(bundle, t):
                reference, given = (array.astype(np.float32, copy=False) for array in pair)
                tally.add(Comparison(f"{t.prompt!r}", reference, given))
        if tally.rmse:
            verdicts.append(tally.verdict(stage, check_stage(floor)))
    before = [verdict.subject for verdict in verdicts].index("noise") + 1
    verdicts.insert(before, measure("step_tables", compare_step_tables(bundle), check_stage(SAMPLER_DB)))
    verdicts += judge_tiles(trajectories)
    if bundle.manifest.has_proof:
        verdicts.append(measure("golden_cases", compare_cases(bundle), check_stage(EXACT_DB)))
    return verdicts


def _tokenizer(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    tokenizers = open_tokenizers(bundle)
    for half, prompt in zip(HALVES, (t.negative_prompt or "", t.prompt), strict=True):
        for number, tokenizer in enumerate(tokenizers, 1):
            tokens = encode(tokenizer, prompt)
            for value, given in (("tokens", tokens.ids), ("attention_mask", tokens.mask)):
                yield from ((expected, given) for expected in recorded(t, f"{value}/{number}", half).values())


def _program(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    """Yield (recorded input, computed input) of each graph: the program is evaluated on the recorded outputs of the
    original."""
    found: dict[str, dict[str, Array]] = {half: {} for half in HALVES}  # outside of the step table
    for stage in text_to_image(bundle.manifest.program).values():
        for call in stage.calls:
            for number, case in enumerate(t.calls.get(call.graph, ())):
                made = {**found[case.half or HALVES[1]], **_made_at(t, stage, case, number)}
                hosts = _hosts_at(bundle, t, stage, case.step, number)
                for name, given in call.inputs.items():
                    own = (
                        made if isinstance(given, str) else {**hosts, **made}
                    )  # _sampler and others judge unchanged host values
                    if name in case.inputs and own.keys() >= set(names_of(given)):
                        yield case.inputs[name], evaluate(given, own, partial(read_array, bundle.folder))
            for case in t.calls.get(call.graph, ()) if stage.stage != DENOISE else ():
                for half in (case.half,) if case.half else HALVES:
                    found[half] |= {value: case.outputs[tensor] for tensor, value in call.outputs.items()}
        if stage.stage == ENCODE_PROMPT:
            zeros = t.negative_prompt is None and bundle.manifest.program.absent_negative == ZEROS
            yield from _encoded(t, stage, zeros)
            if zeros:
                found["negative"] = {name: np.zeros_like(value) for name, value in found["positive"].items()}


def _encoded(t: Trajectory, stage: Stage, zeros: bool) -> Iterator[tuple[Array, Array]]:
    """Yield, for each half, 1 + the number of recorded prompt encodings, and 1 + the number that the program calls: 0
    for a negative prompt that is replaced by `zeros`."""
    for half in halves_of(t):
        count = sum(case.half == half for graph in graphs_of(stage) for case in t.calls.get(graph, ()))
        called = 0 if zeros and half == HALVES[0] else len(stage.calls)
        yield np.array([1 + count], np.float32), np.array([1 + called], np.float32)


def _made_at(t: Trajectory, stage: Stage, at: Case, number: int) -> dict[str, Array]:
    """Return the recorded outputs, by the program's names, of the graphs of `stage` at the step and for the half of the
    call `at`, or for the tile `number`."""

    def belongs(place: int, case: Case) -> bool:
        if at.step is None:
            return stage.stage == DECODE and t.tiling is not None and place == number
        return case.step == at.step and case.half in (at.half, "")

    return {
        value: case.outputs[tensor]
        for call in stage.calls
        for place, case in enumerate(t.calls.get(call.graph, ()))
        if belongs(place, case)
        for tensor, value in call.outputs.items()
        if tensor in case.outputs
    }


def _hosts_at(bundle: Bundle, t: Trajectory, stage: Stage, step: int | None, number: int) -> dict[str, Array]:
    """Return the host values of dtype float32 that the original had in `stage` at `step`, by name; in decode of the
    tile `number`."""
    if stage.stage == ENCODE_IMAGE:
        return {"picture": from_uint8(t.picture)}
    if stage.stage == DECODE:
        return {"decoder_latents": _decoder_latents(bundle, t)[number]}
    if stage.stage != DENOISE or step is None:
        return {}
    row, latents = find_table(bundle, t.sampler, t.steps, 0).rows[step], t.latents[step : step + 1]
    height, width, _ = t.picture.shape
    return {
        "latents": latents,
        "scaled_latents": latents * np.float32(row.input_scale),
        "timestep": np.array([row.timestep], np.float32),
        "time_ids": np.array([[height, width, 0, 0, height, width]], np.float32),
    }


def _characters(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    return compare_characters(bundle)


def compare_characters(bundle: Bundle) -> Iterator[tuple[Array, Array]]:
    """Yield (own, bundle's) bytes of each file of Unicode tables that the bundle has for readers in other languages."""
    for path in sorted({settings.characters for settings in bundle.manifest.tokenizers}):
        files = CHARACTERS, bundle.folder / path
        expected, given = (np.frombuffer(file.read_bytes(), np.uint8) for file in files)
        yield expected, given


def _noise(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    yield t.noise, TorchRandom(t.seed).randn(latents_shape(bundle))


def _timesteps(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    rows = find_table(bundle, t.sampler, t.steps, 0).rows
    found = recorded(t, "timestep").values()
    if found:
        yield np.concatenate(list(found)), np.array([row.timestep for row in rows], np.float32)


def _sampler(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    """Yield (recorded, computed) for each step, from the original's latents and outputs: the inputs of its graphs, then
    the latents after the step."""
    table = find_table(bundle, t.sampler, t.steps, 0)
    given = {name: recorded(t, name) for name in ("latents", "scaled_latents")}
    outputs = guided_outputs(t)
    random = TorchRandom(t.seed)
    random.randn(t.noise.shape)
    yield t.latents[:1], t.noise * np.float32(table.init_noise_sigma)
    history: tuple[Array, ...] = ()
    for n, row in enumerate(table.rows[: len(outputs)]):
        latents = t.latents[n : n + 1]
        if n in given["latents"]:
            yield given["latents"][n], latents
        if n in given["scaled_latents"]:
            yield given["scaled_latents"][n], latents * np.float32(row.input_scale)
        noise = random.randn(t.noise.shape) if row.c else None
        following, history = advance(row, latents, outputs[n], history, noise)
        yield t.latents[n + 1 : n + 2], following


def _vae_scale(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    if expected := recorded_tiles(t, "decoder_latents"):
        yield from zip(expected, _decoder_latents(bundle, t), strict=True)


def _decoder_latents(bundle: Bundle, t: Trajectory) -> list[Array]:
    """Return the latents that the decoder is given, of each tile."""
    latents = unscale_latents(bundle, t.latents[-1:])
    return [latents] if t.tiling is None else list(cut_tiles(t.tiling, latents))


def _image(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    yield t.picture, to_uint8(recorded_picture(t))
    for picture in recorded(t, "picture").values():
        yield picture, from_uint8(t.picture)
