"""The program of a bundle, as data: which graph is called when, with which inputs, and which values its outputs become.

A program has stages, each a list of graph calls, and no expression language: an input of a graph is a value by its
name, several values joined along an axis, a sum of values, or a constant. The host (`pipeline.py`, or an app) provides
the values of `HOST_VALUES` and uses the values of `RESULTS`; a program chooses every other name freely.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.record import ArrayRef, Record


@dataclass(frozen=True)
class HostValue:
    """A value that the host provides: its stages, number of axes and dtype. `numbered` values are written with a slash
    and a number from 1, such as tokens/2."""

    stages: tuple[str, ...]
    rank: int
    dtype: str = "float32"
    numbered: bool = False


ENCODE_PROMPT, ENCODE_IMAGE, DENOISE, DECODE, PREVIEW = STAGES = (
    "encode_prompt",  # once for each prompt of the guidance halves
    "encode_image",  # once, if a picture is redrawn
    "denoise",  # once for each row of the step table
    "decode",  # once, at the end
    "preview",  # of unfinished latents; a reader may leave it out
)
NEEDED = (DENOISE, DECODE)
HOST_VALUES: Mapping[str, HostValue] = {
    "tokens": HostValue((ENCODE_PROMPT,), 2, "int32", numbered=True),  # [1, max_length] of the N-th tokenizer
    "attention_mask": HostValue((ENCODE_PROMPT,), 2, "int32", numbered=True),  # 1 for each token, 0 for padding
    "picture": HostValue((ENCODE_IMAGE,), 4),  # [1, 3, H, W] in -1..1
    "masked_picture": HostValue((ENCODE_IMAGE,), 4),
    "latents": HostValue((DENOISE, PREVIEW), 4),  # [1, c, h, w]
    "scaled_latents": HostValue((DENOISE,), 4),  # latents * input_scale of the row
    "timestep": HostValue((DENOISE,), 1),  # [1]
    "guidance": HostValue((DENOISE,), 1),  # [1], for a graph that embeds it
    "time_ids": HostValue((DENOISE,), 2),  # [1, 6]: height, width, 0, 0, height, width of the picture
    "control_picture": HostValue((DENOISE,), 4),  # in 0..1
    "control_scale": HostValue((DENOISE,), 1),
    "mask": HostValue((ENCODE_IMAGE, DENOISE), 4),
    "decoder_latents": HostValue((DECODE, PREVIEW), 4),  # latents / scaling_factor + shift_factor
}
RESULTS: Mapping[str, tuple[str, ...]] = {
    ENCODE_IMAGE: ("posterior", "image_latents"),
    DENOISE: ("model_output",),
    DECODE: ("decoded",),
    PREVIEW: ("decoded",),
}  # by stage, of which each must make one of its results
HALVES = ("negative", "positive")  # of guidance: the order of every axis of size 2
CLASSIFIER_FREE, EMBEDDED, NONE = GUIDANCE = ("classifier_free", "embedded", "none")
ENCODE_EMPTY, ZEROS = ABSENT_NEGATIVE = ("encode_empty", "zeros")
DRAWS = ("posterior", "start", "steps")
_OF_A_HALF = ("time_ids",)  # values that exist for each half, besides the outputs of encode_prompt
_GIVEN = (
    "tokens",
    "attention_mask",
    "picture",
    "latents",
    "scaled_latents",
    "timestep",
    "guidance",
    "time_ids",
    "decoder_latents",
)


class Concat(Record):
    """Several values one after the other."""

    concat: Annotated[tuple[str, ...], Field(min_length=1, description="names of values, in their order")]
    axis: Annotated[int, Field(description="the axis that grows, from 1; axis 0 is the batch, and never joined")]


class Sum(Record):
    """Several values of one shape, added from left to right in float32."""

    sum: Annotated[tuple[str, ...], Field(min_length=1, description="names of values, in the order of adding")]


class Constant(Record):
    """An array of the bundle."""

    constant: Annotated[ArrayRef, Field(description="the file that holds it")]


Input = str | Concat | Sum | Constant


class Call(Record):
    """One call of a graph."""

    graph: Annotated[str, Field(description="its name among the bundle's graphs")]
    inputs: Annotated[
        dict[str, Input],
        Field(description="for each input tensor of the graph a value's name, a concat, a sum or a constant"),
    ]
    outputs: Annotated[
        dict[str, str],
        Field(description="for output tensors the value that each becomes; what nothing uses may be left out"),
    ]


class Stage(Record):
    """A sequence of graph calls. Stages with the same name are variants: the first one whose host values are all
    available is run."""

    stage: Annotated[str, Field(description=f"{', '.join(STAGES)}; a reader may know others")]
    when: Annotated[
        tuple[str, ...], Field(description="host values that must be there for this variant to be taken")
    ] = ()
    required: Annotated[
        bool, Field(description="whether a reader that does not know the stage must refuse the bundle")
    ] = True
    calls: Annotated[tuple[Call, ...], Field(description="in the order of running")]


class Program(Record):
    """All stages of drawing a picture, which a reader's loop runs."""

    guidance: Annotated[
        str,
        Field(
            description="classifier_free: negative + guidance * (positive - negative) of two model outputs, and the "
            "positive one alone for a guidance of 1 or less; embedded: the graph is given the host value `guidance`; "
            "none: it has no guidance. The last two have no negative half"
        ),
    ]
    absent_negative: Annotated[
        str,
        Field(
            description="what stands for a negative prompt that is not given: encode_empty, the empty prompt; zeros, "
            "zeros in the place of each value that encode_prompt makes"
        ),
    ]
    draws: Annotated[
        tuple[str, ...],
        Field(
            description="the order in which noise is drawn from one generator: posterior (of the redrawn picture), "
            "start, steps (one for each row of the step table with c that is not 0)"
        ),
    ]
    stages: Annotated[tuple[Stage, ...], Field(description="variants of one stage in the order of choosing")]


def names_of(given: Input) -> tuple[str, ...]:
    """Return the names of the values that an input reads."""
    if isinstance(given, str):
        return (given,)
    return given.concat if isinstance(given, Concat) else given.sum if isinstance(given, Sum) else ()


def host_value(name: str) -> HostValue | None:
    """Return the host value called `name`, None if there is none: tokens/1 is one, tokens and tokens/0 are not."""
    base, slash, number = name.partition("/")
    found = HOST_VALUES.get(base)
    if found is None or found.numbered != bool(slash):
        return None
    numbered = number.isascii() and number.isdigit() and not number.startswith("0")
    return found if not slash or numbered else None


def pick_variant(program: Program, stage: str, available: Collection[str]) -> Stage | None:
    """Return the first variant of a stage whose host values are all `available`, None if there is none."""
    return next((each for each in program.stages if each.stage == stage and set(each.when) <= set(available)), None)


def is_provided(program: Program, name: str) -> bool:
    """Return True if the pipeline provides a host value: from a prompt and a redrawn picture, without a mask or a
    control picture."""
    return name.partition("/")[0] in _GIVEN and (name != "guidance" or program.guidance == EMBEDDED)


def text_to_image(program: Program) -> dict[str, Stage]:
    """Return the variant of each stage for only a prompt, in the order of `STAGES`, and the variant of encode_image for
    a redrawn picture."""
    return _pick_stages(program, lambda stage, name: name != "picture" or stage == ENCODE_IMAGE)


def image_to_image(program: Program) -> dict[str, Stage]:
    """Return the variant of each stage for a prompt and a redrawn picture."""
    return _pick_stages(program, lambda stage, name: True)


def _pick_stages(program: Program, there: Callable[[str, str], bool]) -> dict[str, Stage]:
    hosts = {name for stage in program.stages for name in (*stage.when, *host_values_of(stage))}
    given = {name for name in hosts if is_provided(program, name)}
    picked = {s: pick_variant(program, s, {name for name in given if there(s, name)}) for s in STAGES}
    return {name: stage for name, stage in picked.items() if stage is not None}


def host_values_of(stage: Stage) -> list[str]:
    """Return the host values that the calls of a stage read, each once."""
    named = (name for call in stage.calls for given in call.inputs.values() for name in names_of(given))
    return list(dict.fromkeys(name for name in named if host_value(name) is not None))


def graphs_of(stage: Stage | None) -> list[str]:
    """Return the graphs that a stage calls, each once."""
    return list(dict.fromkeys(call.graph for call in stage.calls)) if stage is not None else []


def program_graphs(program: Program) -> list[str]:
    """Return the graphs that the known stages call, each once, in the order of `STAGES`."""
    stages = sorted((s for s in program.stages if s.stage in STAGES), key=lambda stage: STAGES.index(stage.stage))
    return list(dict.fromkeys(call.graph for stage in stages for call in stage.calls))


def find_consumer(program: Program, stage: str, value: str) -> tuple[str, str] | None:
    """Return the first graph and input tensor that reads a value unchanged, None if there is none."""
    calls = _calls_of(program, stage)
    return next(((call.graph, t) for call in calls for t, given in call.inputs.items() if given == value), None)


def find_producer(program: Program, stage: str, value: str) -> tuple[str, str] | None:
    """Return the first graph and output tensor that a value is computed by, None if there is none."""
    calls = _calls_of(program, stage)
    return next(((call.graph, t) for call in calls for t, made in call.outputs.items() if made == value), None)


def _calls_of(program: Program, stage: str) -> list[Call]:
    """Return the calls of the variant for only a prompt; if there is none, the calls of all variants."""
    picked = text_to_image(program).get(stage)
    variants = [each for each in program.stages if each.stage == stage] if picked is None else [picked]
    return [call for each in variants for call in each.calls]


def model_graph(program: Program) -> tuple[str, str]:
    """Return the graph and output tensor of `model_output`, which the sampler reads."""
    found = find_producer(program, DENOISE, "model_output")
    assert found is not None, "check_program refuses a program without"
    return found


def input_of(specs: Mapping[str, GraphSpec], graph: str, name: str) -> TensorSpec:
    """Return the TensorSpec of input `name` of `graph`."""
    return next(tensor for tensor in specs[graph].inputs if tensor.name == name)


def find_ends(program: Program, specs: Mapping[str, GraphSpec]) -> tuple[TensorSpec, TensorSpec]:
    """Return the input tensor of `decoder_latents` and the output tensor of `decoded`, which have the sizes of latents
    and pictures, or of a tile of them."""
    taker, giver = find_consumer(program, DECODE, "decoder_latents"), find_producer(program, DECODE, "decoded")
    assert taker is not None and giver is not None, "check_program refuses a program without"
    graph, name = giver
    return input_of(specs, *taker), next(tensor for tensor in specs[graph].outputs if tensor.name == name)


def latents_shape(program: Program, specs: Mapping[str, GraphSpec]) -> tuple[int, int, int]:
    """Return channels, height and width of the latents: those of `model_output`, since decode may be for tiles."""
    graph, name = model_graph(program)
    shape = next(tensor for tensor in specs[graph].outputs if tensor.name == name).shape
    channels, height, width = (int(size) for size in shape[1:])
    return channels, height, width


def values_of_a_half(program: Program, stage: Stage) -> set[str]:
    """Return the values that differ between the halves of guidance, also the values that `stage` computes from such."""
    prompt = {
        value for s in program.stages if s.stage == ENCODE_PROMPT for c in s.calls for value in c.outputs.values()
    }
    found = {*prompt, *_OF_A_HALF}
    for call in stage.calls:
        if depends_on_half(call, found):
            found.update(call.outputs.values())
    return found


def depends_on_half(call: Call, of_a_half: Collection[str]) -> bool:
    """Return True if a call must be made for each half of guidance."""
    return any(name in of_a_half for given in call.inputs.values() for name in names_of(given))


def halved_graphs(program: Program) -> set[str]:
    """Return the graphs of denoise that are called for each half of guidance: their batch size may be left open."""
    found: set[str] = set()
    for stage in program.stages:
        if stage.stage == DENOISE:
            of_a_half = values_of_a_half(program, stage)
            found.update(call.graph for call in stage.calls if depends_on_half(call, of_a_half))
    return found if program.guidance == CLASSIFIER_FREE else set()
