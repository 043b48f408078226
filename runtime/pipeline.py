"""The denoising loop in numpy. `generate` yields after each step, so that the caller can show progress or stop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.tiling import find_tiling
from pocketdiffusion.runtime.engines import Opener, graph_format, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.one_at_a_time import one_at_a_time
from pocketdiffusion.runtime.program import (
    CLASSIFIER_FREE,
    DECODE,
    DENOISE,
    ENCODE_IMAGE,
    ENCODE_PROMPT,
    ZEROS,
    Stage,
    graphs_of,
    host_values_of,
    image_to_image,
    is_provided,
    text_to_image,
)
from pocketdiffusion.runtime.program_run import Values, accepts_both_halves, run_stage
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.samplers import check_sampler
from pocketdiffusion.runtime.sampling.step_table import StepTable, advance, first_latents
from pocketdiffusion.runtime.sampling.stored_tables import read_table
from pocketdiffusion.runtime.tokenizer import Tokenizer, encode, load_tokenizer
from pocketdiffusion.runtime.vae_tiles import blend_tiles, cut_tiles

Latents = NDArray[np.float32]


@dataclass(frozen=True)
class StepResult:
    """The result of one denoising step, number `step` of `steps`. Only the last has `picture` (uint8 [H, W, 3]) and
    `decoded`, the VAE decoder's output (float32 [1, 3, H, W]), in which NaN can still be seen. `truncated` is the end
    of the prompt that did not fit, `negative_truncated` the end of the negative prompt if guidance uses it."""

    step: int
    steps: int
    timestep: float
    latents: Latents
    picture: NDArray[np.uint8] | None = None
    truncated: str = ""
    negative_truncated: str = ""
    decoded: NDArray[np.float32] | None = None


def generate(
    bundle: Bundle,
    prompt: str,
    *,
    negative_prompt: str | None = None,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 7.5,
    sampler: str | None = None,
    format: str | None = None,
    batched: bool | None = None,
    image: NDArray[np.uint8] | None = None,
    strength: float = 0.8,
    low_memory: bool = False,
    opener: Opener = open_graph,
) -> Iterator[StepResult]:
    """Draw `prompt` by the bundle's program, and yield a StepResult after each step of the sampler.

    `seed`: -2**63 to 2**64 - 1; the noise is diffusers' on a CPU. The defaults of `steps` and `guidance` are not the
    bundle's own, which are in `bundle.manifest.defaults`. `guidance` of 1 or less ignores the negative prompt.
    `negative_prompt` None: the model's default, an empty prompt or zeros. `sampler` None: the bundle's default.
    `format` None: the bundle's first. `batched`: compute both halves of guidance in one call; None: if the graphs
    allow it. `image` (uint8 [H, W, 3] of the bundle's size): redraw it with the last `strength` (0..1) of the steps.
    `low_memory`: keep at most one graph open, and open those of a step again in each step if it has several; the
    picture is the same. `opener` opens the graphs. Raise UserError if an argument is out of its range, or the program
    needs a host value that has no argument here.
    """
    format = graph_format(bundle, format)
    if not isfinite(guidance):
        raise UserError(f"guidance must be a finite number, not {guidance}: 7.5 is common, 1 turns it off")
    start = start_step(steps, 1.0 if image is None else strength)
    table = find_table(bundle, sampler or bundle.manifest.scheduler.default_sampler, steps, start)
    stages = pick_stages(bundle, ENCODE_IMAGE if image is not None else None)
    opener = one_at_a_time(opener) if low_memory else opener
    graphs = Graphs(bundle, format, stages, choose_batched(bundle, format, stages, batched), opener)
    guided = bundle.manifest.program.guidance == CLASSIFIER_FREE and guidance > 1
    random = TorchRandom(seed)
    prompts = {"negative": negative_prompt, "positive": prompt} if guided else {"positive": prompt}
    halves, cuts = encode_prompts(bundle, prompts, stages.get(ENCODE_PROMPT), graphs.open_stage)
    given: Mapping[str, Array] = {}
    if image is not None:
        given = graphs.open_stage(ENCODE_IMAGE)(Values({"picture": read_picture(bundle, image)}, {})).shared
    noisy = start_latents(bundle, table, given, random)
    last = len(table.rows)
    for number, latents in enumerate(denoise(graphs, table, noisy, Values(given, halves), guidance, random), 1):
        if number < last:
            yield StepResult(number, last, table.rows[number - 1].timestep, latents, None, *cuts)
    decoded = decode(graphs, unscale_latents(bundle, latents))
    yield StepResult(last, last, table.rows[-1].timestep, latents, to_uint8(decoded), *cuts, decoded)


@dataclass(frozen=True)
class Graphs:
    """The graphs of a bundle in one format, and the stages that run them. `batched`: a step computes both halves of
    guidance in one call of each graph."""

    bundle: Bundle
    format: str
    stages: Mapping[str, Stage]
    batched: bool
    opener: Opener

    def open_stage(self, name: str) -> Callable[[Values], Values]:
        """Load the graphs of a stage, and return a function that runs it. They are freed with the function."""
        stage, specs = self.stages[name], graph_specs(self.bundle, self.format)
        runners = {graph: self.opener(self.bundle, graph, self.format) for graph in graphs_of(stage)}
        return lambda values: run_stage(
            stage,
            specs,
            values,
            lambda graph, inputs: runners[graph](inputs),
            partial(read_array, self.bundle.folder),
            batched=self.batched and name == DENOISE,
        )


def graph_specs(bundle: Bundle, format: str) -> dict[str, GraphSpec]:
    """Return the specification of each graph of `format` by its name."""
    return {name: graph.spec for name, graph in bundle.manifest.graphs[format].items()}


def choose_batched(bundle: Bundle, format: str, stages: Mapping[str, Stage], wanted: bool | None) -> bool:
    """Return True if a step computes both halves of guidance in one call: as `wanted`, or, for None, if the graphs can.
    Raise UserError if it is wanted and they accept one sample only."""
    batchable = accepts_both_halves(bundle.manifest.program, stages[DENOISE], graph_specs(bundle, format))
    if wanted and not batchable:
        raise UserError(
            f"{bundle.folder}: the {format} graphs of a step accept a batch of 1, and batched=True passes both "
            "guidance halves as a batch of 2: set batched=False, or export with --target generic"
        )
    return batchable if wanted is None else wanted


def denoise(
    graphs: Graphs, table: StepTable, latents: Latents, conditions: Values, guidance: float, random: TorchRandom
) -> Iterator[Latents]:
    """Yield the latents after each row of the step table. `conditions` are the values that all rows are given: those of
    the picture, and those of each half of guidance. The graphs are freed after the last row."""
    run = graphs.open_stage(DENOISE)
    shared = {**conditions.shared, "guidance": np.array([guidance], np.float32)}
    history: tuple[Latents, ...] = ()
    for row in table.rows:
        now = {
            "latents": latents,
            "scaled_latents": latents * np.float32(row.input_scale),
            "timestep": np.array([row.timestep], np.float32),
        }
        made = run(Values({**shared, **now}, conditions.halves))
        outputs = {half: made.of(half)["model_output"] for half in conditions.halves}
        noise = random.randn(latents_shape(graphs.bundle)) if row.c else None
        latents, history = advance(row, latents, combine_halves(outputs, guidance), history, noise)
        yield latents


def decode(graphs: Graphs, latents: Latents) -> NDArray[np.float32]:
    """Return the decoded picture, float32 [1, 3, H, W], of the decoder's `latents`, float32 [1, c, h, w]: in one call
    of the stage, or tile after tile if the decoder is for tiles (vae_tiles.py). The graphs are freed after it."""
    run = graphs.open_stage(DECODE)
    manifest = graphs.bundle.manifest
    tiling = find_tiling(manifest.latents, manifest.vae)

    def decode_one(given: Latents) -> NDArray[np.float32]:
        return run(Values({"decoder_latents": given}, {})).shared["decoded"]

    if tiling is None:
        return decode_one(latents)
    return blend_tiles(tiling, map(decode_one, cut_tiles(tiling, latents)))


def draw(bundle: Bundle, prompt: str, **options: object) -> NDArray[np.uint8]:
    """Return the finished picture, uint8 [H, W, 3]. `options` are the keyword arguments of `generate`."""
    picture = None
    for draft in generate(bundle, prompt, **options):  # type: ignore[arg-type]
        picture = draft.picture
    assert picture is not None
    return picture


def start_step(steps: int, strength: float) -> int:
    """Return the number of leading steps that image-to-image skips, by diffusers' rule:
    steps - min(floor(steps * strength), steps). Raise UserError if no step is left."""
    if steps < 1:
        raise UserError(f"steps must be 1 or more, not {steps}")
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise UserError(
            f"strength {strength} with {steps} steps runs no step (strength * steps is below 1): raise the "
            "strength (at most 1) or the steps"
        )
    return steps - min(int(steps * strength), steps)


def find_table(bundle: Bundle, sampler: str, steps: int, start: int) -> StepTable:
    """Return a step table of the bundle. Raise UserError if it has none for this sampler or number of steps."""
    check_sampler(sampler)
    tables = bundle.manifest.step_tables
    return read_table(tables.index, tables.raw, sampler, steps, start)


def pick_stages(bundle: Bundle, *more: str | None) -> dict[str, Stage]:
    """Return the variant of each stage that draws from a prompt, or from a prompt and a picture if `more` names
    encode_image. Raise UserError if the program lacks denoise, decode or a stage of `more`, or needs a host value that
    this pipeline does not provide, such as a control picture."""
    program = bundle.manifest.program
    picked = image_to_image(program) if ENCODE_IMAGE in more else text_to_image(program)
    for name in (DENOISE, DECODE, *(name for name in more if name is not None)):
        if name not in picked:
            variants = [stage.when for stage in bundle.manifest.program.stages if stage.stage == name]
            if not variants:
                raise UserError(f"{bundle.folder}: its program has no stage {name}: export the model again")
            needs = " or ".join(map(", ".join, variants))
            raise UserError(
                f"{bundle.folder}: the stage {name} needs {needs}, which a prompt and a picture do not provide: use a "
                "reader that provides it"
            )
        lacking = [name for name in host_values_of(picked[name]) if not is_provided(bundle.manifest.program, name)]
        if lacking:
            raise UserError(
                f"{bundle.folder}: the stage {name} needs {', '.join(lacking)}, which this pipeline does not provide"
            )
    return picked


def encode_prompts(
    bundle: Bundle,
    prompts: Mapping[str, str | None],
    stage: Stage | None,
    open_stage: Callable[[str], Callable[[Values], Values]],
) -> tuple[dict[str, Mapping[str, Array]], tuple[str, str]]:
    """Return the values of encode_prompt and `time_ids` of each half, and the ends of the prompt and of the negative
    prompt that did not fit. A prompt of None is absent. Raise UserError if the program needs more tokenizers."""
    program, size = bundle.manifest.program, bundle.manifest.latents
    height, width = size.height * size.scale, size.width * size.scale
    ids = {"time_ids": np.array([[height, width, 0, 0, height, width]], np.float32)}
    if stage is None:
        return {half: ids for half in prompts}, ("", "")
    absent = [half for half, text in prompts.items() if text is None and program.absent_negative == ZEROS]
    tokenizers = open_tokenizers(bundle)
    given, cuts = {}, {}
    for half, text in prompts.items():
        tokens = [encode(tokenizer, text or "") for tokenizer in tokenizers]
        cuts[half] = max((each.truncated for each in tokens), key=len)
        if half not in absent:
            given[half] = {f"tokens/{n}": each.ids for n, each in enumerate(tokens, 1)}
            given[half] |= {f"attention_mask/{n}": each.mask for n, each in enumerate(tokens, 1)}
    if lacking := set(host_values_of(stage)) - given["positive"].keys():
        raise UserError(
            f"{bundle.folder}: the program needs {min(lacking)}, and the bundle has {len(tokenizers)} tokenizers: "
            "export the model again"
        )
    made = open_stage(ENCODE_PROMPT)(Values({}, given)).halves
    states = {half: {k: v for k, v in own.items() if k not in given[half]} for half, own in made.items()}
    for half in absent:
        states[half] = {name: np.zeros_like(value) for name, value in states["positive"].items()}
    return {half: {**states[half], **ids} for half in prompts}, (cuts["positive"], cuts.get("negative", ""))


def latents_shape(bundle: Bundle) -> tuple[int, int, int, int]:
    """Return the shape of the latents: batch 1, channels, height, width."""
    size = bundle.manifest.latents
    return 1, size.channels, size.height, size.width


def start_latents(bundle: Bundle, table: StepTable, given: Mapping[str, Array], random: TorchRandom) -> Latents:
    """Return the latents of the first step, float32 [1, c, h, w]: noise, or the latents of a picture with noise added.
    `given` has the picture's posterior or latents, as encode_image returned them. Noise is drawn in the program's
    order."""
    shape = latents_shape(bundle)
    if not given:
        return first_latents(table, random.randn(shape))
    drawn: dict[str, Latents] = {}
    for name in bundle.manifest.program.draws:
        if name == "start" or (name == "posterior" and name in given):
            drawn[name] = random.randn(shape)
    if "posterior" in given:
        image = scale_posterior(bundle, given["posterior"], drawn["posterior"])
    else:
        image = scale_latents(bundle, given["image_latents"])
    return first_latents(table, drawn["start"], image)


def open_tokenizers(bundle: Bundle) -> tuple[Tokenizer, ...]:
    """Return the bundle's tokenizers: tokens/N are computed by the N-th."""
    return tuple(
        load_tokenizer(
            bundle.folder / settings.vocab,
            bundle.folder / settings.merges,
            max_length=settings.max_length,
            bos_id=settings.bos_id,
            eos_id=settings.eos_id,
            pad_id=settings.pad_id,
            unk_id=settings.unk_id,
            added=settings.added_tokens,
        )
        for settings in bundle.manifest.tokenizers
    )


def find_truncated(bundle: Bundle, prompt: str) -> str:
    """Return the end of `prompt` that does not fit into the text encoders, or ""."""
    return max((encode(tokenizer, prompt).truncated for tokenizer in open_tokenizers(bundle)), key=len)


def combine_halves(outputs: Mapping[str, Latents], guidance: float) -> Latents:
    """Return the model output for the sampler: guided if both halves were drawn, else the positive half."""
    if "negative" not in outputs:
        return outputs["positive"]
    return guide(outputs["negative"], outputs["positive"], guidance)


def guide(negative: Latents, positive: Latents, guidance: float) -> Latents:
    """Apply classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in diffusers' order of operations."""
    return negative + np.float32(guidance) * (positive - negative)


def read_picture(bundle: Bundle, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the host value `picture`, float32 [1, 3, H, W] in -1..1. Raise UserError for another size or dtype."""
    size = bundle.manifest.latents
    wanted = (size.height * size.scale, size.width * size.scale, 3)
    if image.shape != wanted or image.dtype != np.uint8:
        raise UserError(
            f"the picture is {image.dtype} {list(image.shape)}, and this bundle needs uint8 {list(wanted)}, "
            "[height, width, 3]: resize or convert it"
        )
    return from_uint8(image)


def scale_posterior(bundle: Bundle, parameters: NDArray[np.float32], noise: Latents) -> Latents:
    """Draw latents from a posterior, float32 [1, 2c, h, w] of means and logarithms of variances, with `noise`, float32
    [1, c, h, w]. Return them in the UNet's scale."""
    mean, log_variance = np.split(parameters, 2, axis=1)
    return scale_latents(bundle, mean + np.exp(np.float32(0.5) * np.clip(log_variance, -30, 20)) * noise)


def scale_latents(bundle: Bundle, latents: Latents) -> Latents:
    """Convert from the VAE's scale to the UNet's: (latents - shift_factor) * scaling_factor."""
    vae = bundle.manifest.vae
    scaled: Latents = (latents - np.float32(vae.shift_factor)) * np.float32(vae.scaling_factor)
    return scaled


def unscale_latents(bundle: Bundle, latents: Latents) -> Latents:
    """Convert from the UNet's scale to the VAE's: latents / scaling_factor + shift_factor."""
    vae = bundle.manifest.vae
    return latents / np.float32(vae.scaling_factor) + np.float32(vae.shift_factor)
