"""One generation by the original model, recorded: what the gate feeds to every artifact and compares with.

All arrays are what the original computed in float32, with diffusers' own scheduler and transformers' own tokenizer, so
that each part of the reference phone is judged against an implementation that is not ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.runner import Array

HALVES = ("negative", "positive")  # the two guidance halves, in the order of every axis of size 2 below


@dataclass(frozen=True)
class Trajectory:
    """`n` UNet calls. The arrays, with `c, h, w` the latents' shape and `H, W` the picture's:

    ids int32 [2, 77]; states [2, 77, d] and pooled [2, d] (text encoder outputs); noise [1, c, h, w]; timesteps [n];
    samples [n, c, h, w] (what the UNet was given); outputs [n, 2, c, h, w]; latents [n + 1, c, h, w] (before each call,
    and at the end); unscaled [1, c, h, w] (the VAE decoder's input); decoded [1, 3, H, W]; picture uint8 [H, W, 3];
    encoded [1, 2c, h, w] (the VAE encoder's output for `picture`). float32 unless said otherwise. mask int32 [2, 77] is
    there where the text encoder takes an attention mask. `controls` has the PSNR (dB) of other pictures by the original
    beside this one, where they were drawn (`controls.py`).
    """

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    sampler: str
    guidance: float
    ids: Array
    states: Array
    pooled: Array
    noise: Array
    timesteps: Array
    samples: Array
    outputs: Array
    latents: Array
    unscaled: Array
    decoded: Array
    picture: Array
    encoded: Array
    mask: Array | None = None
    controls: Mapping[str, float] = field(default_factory=dict)


OPTIONAL = ("mask",)  # the arrays that some models have
ARRAYS = tuple(f.name for f in fields(Trajectory) if f.type is Array)
FACTS = tuple(f.name for f in fields(Trajectory) if f.name not in (*ARRAYS, *OPTIONAL))


def probe(trajectory: Trajectory) -> Trajectory:
    """The trajectory with its first, middle and last call only: enough for the rungs below the shipped artifact."""
    n = len(trajectory.timesteps)
    calls = sorted({0, n // 2, n - 1})
    kept = {name: getattr(trajectory, name)[calls] for name in ("timesteps", "samples", "outputs")}
    return replace(trajectory, **kept)


@dataclass(frozen=True)
class Case:
    """Inputs of one graph with the outputs that the original gave."""

    label: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def cases(graph: str, trajectory: Trajectory) -> Iterator[Case]:
    """Every recorded call of `graph` in `trajectory`."""
    return _CASES[graph](trajectory)


def _text_encoder(t: Trajectory) -> Iterator[Case]:
    for i, half in enumerate(HALVES):
        outputs = {"last_hidden_state": t.states[i : i + 1], "pooler_output": t.pooled[i : i + 1]}
        inputs = {"input_ids": t.ids[i : i + 1]}
        if t.mask is not None:
            inputs["attention_mask"] = t.mask[i : i + 1]
        yield Case(f"{t.prompt!r}, {half}", inputs, outputs)


def _unet(t: Trajectory) -> Iterator[Case]:
    for n, timestep in enumerate(t.timesteps):
        for i, half in enumerate(HALVES):
            inputs: dict[str, NDArray[Any]] = {
                "sample": t.samples[n : n + 1],
                "timestep": np.array([timestep], np.float32),
                "encoder_hidden_states": t.states[i : i + 1],
            }
            yield Case(f"{t.prompt!r}, timestep {timestep:g}, {half}", inputs, {"out_sample": t.outputs[n, i : i + 1]})


def _vae_decoder(t: Trajectory) -> Iterator[Case]:
    yield Case(f"{t.prompt!r}", {"latent_sample": t.unscaled}, {"sample": t.decoded})


def _vae_encoder(t: Trajectory) -> Iterator[Case]:
    sample = (t.picture.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]
    yield Case(f"{t.prompt!r}", {"sample": np.ascontiguousarray(sample)}, {"latent_parameters": t.encoded})


_CASES = {"text_encoder": _text_encoder, "unet": _unet, "vae_decoder": _vae_decoder, "vae_encoder": _vae_encoder}
GRAPHS = tuple(_CASES)  # what a bundle must hold in each of its formats
