"""One generation by the original model, recorded: what the gate feeds to every artifact and compares with.

All arrays are what the original computed in float32, with diffusers' own scheduler and transformers' own tokenizer, so
that each part of the reference phone is judged against an implementation that is not ours.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from pocketdiffusion.runtime.pipeline import combine_halves
from pocketdiffusion.runtime.program import (
    CLASSIFIER_FREE,
    DECODE,
    DENOISE,
    ENCODE_PROMPT,
    HALVES,
    ZEROS,
    Program,
    Stage,
    depends_on_half,
    model_graph,
    text_to_image,
    values_of_a_half,
)
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.vae_tiles import Tiling, blend_tiles


@dataclass(frozen=True)
class Case:
    """The inputs of one call of a graph, a batch of 1, and the outputs of the original. `half` is "negative",
    "positive", or "" for a call that is for neither; `step` is the row of the step table, from 0, None outside of
    it."""

    label: str
    half: str
    step: int | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Trajectory:
    """One picture of `n` sampler steps, drawn by `program`. `calls` has the calls of each graph, by step, the negative
    half of guidance before the positive. noise [1, c, h, w] is the first draw; latents [n + 1, c, h, w] are the latents
    before each step and at the end; picture uint8 [H, W, 3]. Arrays are float32 unless said otherwise.
    `negative_prompt` None is an absent one. `controls` has the PSNR (dB) of other pictures by the original against this
    one, if they were drawn (`controls.py`). With `tiling` the graphs of decode have one call for each tile, `picture`
    is what they are blended to, and `undivided`, uint8 [H, W, 3], is the picture that the original decoded in one call;
    None for a bundle's own drawing."""

    program: Program
    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int
    sampler: str
    guidance: float
    calls: Mapping[str, tuple[Case, ...]]
    noise: Array
    latents: Array
    picture: Array
    controls: Mapping[str, float] = field(default_factory=dict)
    tiling: Tiling | None = None
    undivided: Array | None = None


ARRAYS = ("noise", "latents", "picture")  # arrays that belong to no call
UNDIVIDED = "undivided"  # another one, of a recording in tiles
FACTS = ("prompt", "negative_prompt", "seed", "steps", "sampler", "guidance", "controls")


def cases(graph: str, trajectory: Trajectory) -> Iterator[Case]:
    """Return an iterator over the recorded calls of `graph` in `trajectory`."""
    return iter(trajectory.calls.get(graph, ()))


def labels_of(prompt: str, positions: Sequence[tuple[str, int | None]]) -> list[str]:
    """Return the name of each call at `positions`, halves and steps. Calls for tiles have one position, and are
    counted."""
    counts = Counter(positions)
    seen: Counter[tuple[str, int | None]] = Counter()
    names = []
    for half, step in positions:
        seen[half, step] += 1
        tile = f", tile {seen[half, step]}" if counts[half, step] > 1 else ""
        names.append(label_of(prompt, half, step) + tile)
    return names


def label_of(prompt: str, half: str, step: int | None) -> str:
    """Return the name of a call for people: prompt, step and half."""
    return ", ".join(word for word in (repr(prompt), "" if step is None else f"step {step + 1}", half) if word)


def recorded_steps(trajectory: Trajectory) -> list[int]:
    """Return the rows of the step table that calls were recorded in, from 0, in order."""
    return sorted({case.step for each in trajectory.calls.values() for case in each if case.step is not None})


def keep_steps(trajectory: Trajectory, steps: Collection[int]) -> Trajectory:
    """Return the trajectory without the calls of other steps; `latents` stay complete."""
    kept = {
        graph: tuple(case for case in each if case.step is None or case.step in steps)
        for graph, each in trajectory.calls.items()
    }
    return replace(trajectory, calls=kept)


def first_middle_last_steps(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory with its first, middle and last step only."""
    return spread_steps(trajectory, 3)


def spread_steps(trajectory: Trajectory, count: int) -> Trajectory:
    """Return the trajectory with `count` of its steps only, at least 2: the first, the last, and others evenly between
    them."""
    steps = recorded_steps(trajectory)
    last = len(steps) - 1
    return keep_steps(trajectory, {steps[min(number * len(steps) // (count - 1), last)] for number in range(count)})


def recorded(trajectory: Trajectory, value: str, half: str = "") -> dict[int | None, Array]:
    """Return a value of the program by step (None outside of the step table). If it differs between the halves of
    guidance, `half` chooses one, else `half` is "". Empty if no recorded call has the value as an output or, unchanged,
    as an input."""
    found: dict[int | None, Array] = {}
    for stage in text_to_image(trajectory.program).values():
        for call in stage.calls:
            given = [name for name, made in call.outputs.items() if made == value]
            taken = [name for name, each in call.inputs.items() if each == value]
            for case in trajectory.calls.get(call.graph, ()):
                if half and case.half not in (half, ""):
                    continue
                for name in given:
                    found.setdefault(case.step, case.outputs[name])
                for name in taken:
                    found.setdefault(case.step, case.inputs[name])
    return found


def recorded_once(trajectory: Trajectory, value: str, half: str = "") -> Array:
    """Return a value that occurs once in a picture, such as decoded. Otherwise like `recorded`. Of tiles it is the
    first one's: `recorded_picture` has all."""
    (found,) = recorded(trajectory, value, half).values()
    return found


def recorded_tiles(trajectory: Trajectory, value: str) -> list[Array]:
    """Return a value of decode, `decoder_latents` or `decoded`, of each tile in the order of decoding; of one call
    without tiles."""
    stage = text_to_image(trajectory.program)[DECODE]
    for call in stage.calls:
        tensors = [(name, "in") for name, each in call.inputs.items() if each == value]
        tensors += [(name, "out") for name, made in call.outputs.items() if made == value]
        for name, side in tensors:
            calls = trajectory.calls.get(call.graph, ())
            return [(case.inputs if side == "in" else case.outputs)[name] for case in calls]
    return []


def recorded_picture(trajectory: Trajectory) -> Array:
    """Return the decoded picture, float32 [1, 3, H, W]; with tiles what they are blended to."""
    if trajectory.tiling is None:
        return recorded_once(trajectory, "decoded")
    return blend_tiles(trajectory.tiling, recorded_tiles(trajectory, "decoded"))


def guided_outputs(trajectory: Trajectory) -> dict[int, Array]:
    """Return the guided prediction at each step, which is the input of the sampler: float32 [1, c, h, w]."""
    halves = {half: recorded(trajectory, "model_output", half) for half in halves_of(trajectory)}
    return {
        step: combine_halves({half: found[step] for half, found in halves.items()}, trajectory.guidance)
        for step in recorded_steps(trajectory)
    }


def halves_of(trajectory: Trajectory) -> tuple[str, ...]:
    """Return the halves of guidance that were recorded."""
    graph, _ = model_graph(trajectory.program)
    there = {case.half for case in trajectory.calls.get(graph, ())}
    return tuple(half for half in HALVES if half in there)


def call_positions(
    program: Program,
    graph: str,
    count: int,
    guidance: float,
    no_negative: bool,
    *,
    positive_first: bool = False,
    tiles: int = 1,
) -> list[tuple[str, int | None]]:
    """Return (half, step) of each of the `count` calls of a graph in their order: the order of `run_stage` without a
    batch, or, with `positive_first`, the order in which diffusers' pipelines encode their prompts. `tiles` is the
    number of calls of each graph of decode.

    Raise ValueError if `count` does not fit."""
    stage, halved = _stage_of(program, graph)
    halves = HALVES if program.guidance == CLASSIFIER_FREE and guidance > 1 else HALVES[1:]
    if stage.stage == ENCODE_PROMPT:
        encoded = HALVES[1:] if no_negative and program.absent_negative == ZEROS else halves
        found: list[tuple[str, int | None]] = [(half, None) for half in encoded[:: -1 if positive_first else 1]]
    elif stage.stage == DENOISE:
        each = halves if halved else ("",)
        found = [(half, step) for step, half in product(range(count // len(each)), each)]
    else:
        found = [("", None)] * (tiles if stage.stage == DECODE else 1)
    if len(found) != count:
        raise ValueError(f"{graph} was called {count} times in {stage.stage}, not {len(found)}")
    return found


def stacked_halves(program: Program, graph: str, guidance: float) -> int:
    """Return the batch size with which a pipeline calls a graph: 2 for both halves of guidance in the steps of the
    sampler, else 1."""
    stage, _ = _stage_of(program, graph)
    guided = program.guidance == CLASSIFIER_FREE and guidance > 1
    return len(HALVES) if guided and stage.stage == DENOISE else 1


def is_halved(program: Program, graph: str) -> bool:
    """Tell whether `graph` is called for each half of guidance, and not once for both."""
    return _stage_of(program, graph)[1]


def _stage_of(program: Program, graph: str) -> tuple[Stage, bool]:
    for stage in text_to_image(program).values():
        for call in stage.calls:
            if call.graph == graph:
                halved = stage.stage == ENCODE_PROMPT or depends_on_half(call, values_of_a_half(program, stage))
                return stage, halved
    raise ValueError(f"no stage that draws from a prompt calls {graph}")


def make_cases(
    prompt: str,
    call_positions: Iterable[tuple[str, int | None]],
    calls: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> tuple[Case, ...]:
    """Return the cases of one graph from the inputs and outputs of its calls, in the order that trajectories have."""
    positions = list(call_positions)
    found = [
        Case(label, half, step, inputs, outputs)
        for label, (half, step), (inputs, outputs) in zip(labels_of(prompt, positions), positions, calls, strict=True)
    ]
    return tuple(sorted(found, key=lambda case: (-1 if case.step is None else case.step, case.half)))


def digest_arrays(trajectory: Trajectory) -> Iterator[Array]:
    """Yield the arrays that identify a drawing: token ids, the model's inputs at each step, latents and picture."""
    hosts = sorted({value for stage in text_to_image(trajectory.program).values() for value in _tokens(stage)})
    for value in hosts:
        yield np.concatenate([x for half in HALVES for x in recorded(trajectory, value, half).values()])
    yield from recorded(trajectory, "scaled_latents").values()
    yield from recorded_tiles(trajectory, "decoder_latents")
    yield trajectory.picture


def _tokens(stage: Stage) -> Iterator[str]:
    for call in stage.calls:
        yield from (given for given in call.inputs.values() if isinstance(given, str) and given.startswith("tokens/"))
