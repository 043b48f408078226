"""Conformance vectors of guidance and of the VAE's scale, by torch and diffusers as the pipelines compute them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector

NEAR_DB = 120.0  # float32, in the same order
GUIDANCES = (7.5, 1.5, 1.0000001, 1.0, 0.5, 0.0, -2.0)


def guidance_vector(arrays: Arrays) -> Vector:
    """As the pipelines combine the halves; do_classifier_free_guidance is guidance > 1."""
    negative, positive = torch.from_numpy(_values(1, (16,))), torch.from_numpy(_values(2, (16,)))
    cases = []
    for scale in GUIDANCES:
        output = negative + scale * (positive - negative) if scale > 1 else positive
        cases.append(
            Case(
                label=f"guidance {scale}",
                numbers={"guidance": scale},
                arrays={"negative": arrays.add(negative.numpy()), "positive": arrays.add(positive.numpy())},
                expected={"output": arrays.add(output.numpy())},
            )
        )
    tells = (
        "guidance is negative + g * (positive - negative), the halves in this order; at 1 and below the positive half "
        "alone counts"
    )
    return Vector(name="guidance", kind="guidance", tells=tells, floor_db=NEAR_DB, cases=tuple(cases))


def scale_vectors(vae: Mapping[str, Any], arrays: Arrays) -> tuple[Vector, ...]:
    """What the VAE's decoder gets, and what its encoder's posterior becomes. The shift_factor of a configuration is not
    applied, as diffusers' pipelines of Stable Diffusion do not."""
    scale = vae["scaling_factor"]
    latents = torch.from_numpy(_values(3, (1, 4, 2, 2)) * np.float32(5))
    decoder = Vector(
        name="decoder scale",
        kind="decoder_scale",
        tells="the decoder gets latents / scaling_factor + shift_factor, both the bundle's own: 0.18215 is Stable "
        "Diffusion 1.5's VAE scale, other models have others",
        floor_db=NEAR_DB,
        cases=(
            Case(
                label="latents",
                arrays={"latents": arrays.add(latents.numpy())},
                expected={"decoder_latents": arrays.add((latents / scale).numpy())},
            ),
        ),
    )
    mean, log_variance = _values(4, (1, 4, 2, 2)), _values(5, (1, 4, 2, 2)) * np.float32(3)
    small, large = np.full_like(mean, -40), np.full_like(mean, 30)
    posterior = [
        _posterior("log variances about 0", mean, log_variance, scale, arrays),
        _posterior("log variances under -30, which is the least", mean * 0, small, scale, arrays),
        _posterior("log variances over 20, which is the largest", mean, large, scale, arrays),
    ]
    return (
        decoder,
        *(
            Vector(
                name=f"posterior, {case.label}",
                kind="posterior",
                tells="a picture's latents are (mean + exp(0.5 * clip(log variance, -30, 20)) * noise - shift_factor) "
                "* scaling_factor, with the bundle's own factors (0.18215 is Stable Diffusion 1.5's VAE scale); the "
                "mean is the first half of the channels",
                floor_db=110.0,  # exp of float32
                cases=(case,),
            )
            for case in posterior
        ),
    )


def _posterior(label: str, mean: Array, log_variance: Array, scale: float, arrays: Arrays) -> Case:
    parameters = np.concatenate([mean, log_variance], axis=1)
    generator = torch.Generator().manual_seed(12)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(12))
    drawn = DiagonalGaussianDistribution(torch.from_numpy(parameters)).sample(generator) * scale
    return Case(
        label=label,
        arrays={"parameters": arrays.add(parameters), "noise": arrays.add(noise.numpy())},
        expected={"latents": arrays.add(drawn.numpy())},
    )


def _values(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
