"""Conformance vectors of guidance and of the VAE's scale, by torch and diffusers as the pipelines compute them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from pocketdiffusion.runtime.verify.questions import (
    GUIDANCES,
    NEAR_DB,
    POSTERIOR_DB,
    POSTERIOR_SEED,
    POSTERIORS,
    posterior_parameters,
    random_values,
)
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector


def guidance_vector(arrays: Arrays) -> Vector:
    """Return the vector of guidance: the pipelines' combination of the halves; do_classifier_free_guidance is guidance
    > 1."""
    negative, positive = (torch.from_numpy(random_values(seed, (16,))) for seed in (1, 2))
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
    """Return the vectors of the VAE's scale: the input of its decoder, and the latents from its encoder's posterior.
    The shift_factor of a configuration is not applied: diffusers' pipelines of Stable Diffusion do not apply it
    either."""
    scale = vae["scaling_factor"]
    latents = torch.from_numpy(random_values(3, (1, 4, 2, 2)) * np.float32(5))
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
    posterior = [_posterior(label, scale, arrays) for label in POSTERIORS]
    return (
        decoder,
        *(
            Vector(
                name=f"posterior, {case.label}",
                kind="posterior",
                tells="a picture's latents are (mean + exp(0.5 * clip(log variance, -30, 20)) * noise - shift_factor) "
                "* scaling_factor, with the bundle's own factors (0.18215 is Stable Diffusion 1.5's VAE scale); the "
                "mean is the first half of the channels",
                floor_db=POSTERIOR_DB,
                cases=(case,),
            )
            for case in posterior
        ),
    )


def _posterior(label: str, scale: float, arrays: Arrays) -> Case:
    parameters = posterior_parameters(label)
    generator = torch.Generator().manual_seed(POSTERIOR_SEED)
    noise = torch.randn((1, 4, 2, 2), generator=torch.Generator().manual_seed(POSTERIOR_SEED))
    drawn = DiagonalGaussianDistribution(torch.from_numpy(parameters)).sample(generator) * scale
    return Case(
        label=label,
        arrays={"parameters": arrays.add(parameters), "noise": arrays.add(noise.numpy())},
        expected={"latents": arrays.add(drawn.numpy())},
    )
