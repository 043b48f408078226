"""The denoising loop of the reference phone: a generator, so that the caller owns progress, previews and cancelling."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.engines import Opener, graph_format, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.sampling.samplers import step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import StepTable, advance, first_latents
from pocketdiffusion.runtime.tokenizer import Tokenizer, Tokens, encode, load_tokenizer

Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Draft:
    """What each step yields: `step` UNet calls of `steps` are done. `picture` (uint8 [H, W, 3]) comes with the last,
    and `decoded`, the VAE decoder's float32 [1, 3, H, W] that it was made of: there NaN is still to be seen. `cut` is
    the end of the prompt that did not fit, `negative_cut` that of the negative prompt where guidance uses it."""

    step: int
    steps: int
    timestep: float
    latents: Latents
    picture: NDArray[np.uint8] | None = None
    cut: str = ""
    negative_cut: str = ""
    decoded: NDArray[np.float32] | None = None


def generate(
    bundle: Bundle,
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    steps: int = 20,
    guidance: float = 7.5,
    sampler: str | None = None,
    format: str | None = None,
    batched: bool | None = None,
    image: NDArray[np.uint8] | None = None,
    strength: float = 0.8,
    opener: Opener = open_graph,
) -> Iterator[Draft]:
    """Draws `prompt`, one UNet call of the sampler at a time.

    `sampler` defaults to the checkpoint's own; `guidance` 1 or less draws without the negative prompt. `batched` asks
    the UNet for both guidance halves in one call, which its artifact must allow; by default it is done where it can be.
    With `image` (uint8 [H, W, 3] of the bundle's size) the last `strength` (0..1) of the steps redraw that picture.
    `opener` says where the graphs run. Raises UserError where an argument is out of its range. Equal seeds give
    diffusers' latents on the CPU.
    """
    manifest = bundle.manifest
    format = graph_format(bundle, format)
    if not isfinite(guidance):
        raise UserError(f"guidance must be a number, not {guidance}: 7.5 is usual, 1 is none")
    start = start_step(steps, 1.0 if image is None else strength)
    table = find_table(bundle, sampler or manifest.scheduler.default_sampler, steps, start)
    tokenizer = open_tokenizer(bundle)
    tokens = encode(tokenizer, prompt)
    random = TorchRandom(seed)

    text_encoder = opener(bundle, "text_encoder", format)
    states = encode_text(text_encoder, tokens)
    guided = guidance > 1
    negative_tokens = encode(tokenizer, negative_prompt) if guided else None
    negative = states if negative_tokens is None else encode_text(text_encoder, negative_tokens)
    cuts = tokens.cut, "" if negative_tokens is None else negative_tokens.cut
    del text_encoder

    shape = (1, manifest.latents.channels, manifest.latents.height, manifest.latents.width)
    drawn = None if image is None else encode_image(bundle, image, format, random, opener)
    latents = first_latents(table, random.randn(shape), drawn)

    unet = opener(bundle, "unet", format)
    batchable = isinstance(unet.spec.inputs[0].shape[0], str)
    if batched and not batchable:
        raise UserError(f"{bundle.folder}: the {format} UNet takes one sample at a time, both guidance halves are two")
    batched = batchable if batched is None else batched
    history: tuple[Latents, ...] = ()
    for number, row in enumerate(table.rows, 1):
        scaled = latents * np.float32(row.input_scale)
        if not guided:
            output = predict(unet, scaled, row.timestep, states)
        elif batched:
            output = guide(*predict_both(unet, scaled, row.timestep, negative, states), guidance)
        else:
            output = guide(
                predict(unet, scaled, row.timestep, negative), predict(unet, scaled, row.timestep, states), guidance
            )
        noise = random.randn(shape) if row.c else None
        latents, history = advance(row, latents, output, history, noise)
        if number < len(table.rows):
            yield Draft(number, len(table.rows), row.timestep, latents, None, *cuts)
    del unet
    sample = decode_latents(bundle, latents, format, opener)
    last = len(table.rows)
    yield Draft(last, last, table.rows[-1].timestep, latents, to_uint8(sample), *cuts, sample)


def draw(bundle: Bundle, prompt: str, **options: object) -> NDArray[np.uint8]:
    """The finished picture of `generate`, uint8 [H, W, 3]."""
    picture = None
    for draft in generate(bundle, prompt, **options):  # type: ignore[arg-type]
        picture = draft.picture
    assert picture is not None
    return picture


def start_step(steps: int, strength: float) -> int:
    """How many leading steps image-to-image skips: diffusers' rule, steps - min(floor(steps * strength), steps)."""
    if steps < 1:
        raise UserError(f"steps must be 1 or more, not {steps}")
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise UserError(
            f"strength {strength} of {steps} steps leaves none to run: raise one of them (strength is at most 1)"
        )
    return steps - min(int(steps * strength), steps)


def find_table(bundle: Bundle, sampler: str, steps: int, start: int) -> StepTable:
    """The manifest's own table where it holds one, else the same made from the checkpoint's scheduler settings."""
    for table in bundle.manifest.step_tables:
        if (table.sampler, table.steps, table.start) == (sampler, steps, start):
            return table
    return step_table(sampler, read_schedule(bundle.manifest.scheduler.config), steps, start)


def open_tokenizer(bundle: Bundle) -> Tokenizer:
    """The bundle's own vocabulary and settings."""
    settings = bundle.manifest.tokenizer
    return load_tokenizer(
        bundle.folder / settings.vocab,
        bundle.folder / settings.merges,
        max_length=settings.max_length,
        bos_id=settings.bos_id,
        eos_id=settings.eos_id,
        pad_id=settings.pad_id,
        unk_id=settings.unk_id,
        added=settings.added_tokens,
    )


def encode_text(text_encoder: Runner, tokens: Tokens) -> NDArray[np.float32]:
    """float32 [1, max_length, channels]. The text encoder gets the mask where it has an input for it."""
    inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
    taken = {tensor.name for tensor in text_encoder.spec.inputs}
    return text_encoder({name: array for name, array in inputs.items() if name in taken})["last_hidden_state"]


def predict(unet: Runner, sample: Latents, timestep: float, states: NDArray[np.float32]) -> Latents:
    """One UNet call: epsilon or v, as the model was trained, of the shape of `sample`."""
    inputs: Mapping[str, NDArray[np.float32]] = {
        "sample": sample,
        "timestep": np.array([timestep], np.float32),
        "encoder_hidden_states": states,
    }
    return unet(inputs)["out_sample"]


def predict_both(
    unet: Runner, sample: Latents, timestep: float, negative: NDArray[np.float32], states: NDArray[np.float32]
) -> tuple[Latents, Latents]:
    """Both guidance halves in one UNet call of batch 2: for the negative prompt and for the prompt."""
    both = predict(unet, np.concatenate([sample, sample]), timestep, np.concatenate([negative, states]))
    return both[:1], both[1:]


def guide(negative: Latents, positive: Latents, guidance: float) -> Latents:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in diffusers' order of operations."""
    return negative + np.float32(guidance) * (positive - negative)


def encode_image(
    bundle: Bundle, image: NDArray[np.uint8], format: str, random: TorchRandom, opener: Opener = open_graph
) -> Latents:
    """A draw from the VAE's posterior of `image`, scaled as the UNet expects."""
    size = bundle.manifest.latents
    wanted = (size.height * size.scale, size.width * size.scale, 3)
    if image.shape != wanted or image.dtype != np.uint8:
        raise UserError(
            f"the picture is {image.dtype}{list(image.shape)}, this bundle redraws uint8{list(wanted)}: convert it"
        )
    parameters = opener(bundle, "vae_encoder", format)({"sample": from_uint8(image)})["latent_parameters"]
    mean, _ = np.split(parameters, 2, axis=1)
    return scale_posterior(bundle, parameters, random.randn(mean.shape))


def scale_posterior(bundle: Bundle, parameters: NDArray[np.float32], noise: Latents) -> Latents:
    """The draw from a posterior, float32 [1, 2c, h, w] of means and logarithms of variances, that `noise` [1, c, h, w]
    makes, in the UNet's scale."""
    mean, log_variance = np.split(parameters, 2, axis=1)
    drawn = mean + np.exp(np.float32(0.5) * np.clip(log_variance, -30, 20)) * noise
    vae = bundle.manifest.vae
    scaled: Latents = (drawn - np.float32(vae.shift_factor)) * np.float32(vae.scaling_factor)
    return scaled


def decode_latents(bundle: Bundle, latents: Latents, format: str, opener: Opener = open_graph) -> NDArray[np.float32]:
    """The VAE decoder's float32 [1, 3, H, W], about -1..1."""
    return opener(bundle, "vae_decoder", format)({"latent_sample": unscale_latents(bundle, latents)})["sample"]


def unscale_latents(bundle: Bundle, latents: Latents) -> Latents:
    """From the UNet's scale to the VAE's: latents / scaling_factor + shift_factor."""
    vae = bundle.manifest.vae
    return latents / np.float32(vae.scaling_factor) + np.float32(vae.shift_factor)
