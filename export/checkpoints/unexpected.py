"""Unused tensors of a weight file: the patterns that are known to be harmless, and the patterns that a user allows."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

# Tensors that training and conversion leave behind, as shell patterns. diffusers ignores them too.
HARMLESS = (
    "model_ema.*",  # LitEma: a running mean of the weights, and its `decay` and `num_updates`
    "loss.*",  # of an autoencoder's training: `loss.logvar`, the discriminator, LPIPS
    "*position_ids",  # 0, 1, 2, ...: written by transformers until 4.31
    "text_projection.weight",  # of the complete CLIP model; Stable Diffusion uses the states before it
    "logit_scale",
    "vision_model.*",
    "visual_projection.weight",
    "*.total_ops",  # written by thop, which counts operations
    "*.total_params",
    "total_ops",
    "total_params",
    # the noise schedule of CompVis/latent-diffusion, which registers it in the module
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
)


def is_allowed(name: str, part: str, patterns: Sequence[str] = ()) -> bool:
    """Return True if an unused tensor may be ignored: it is harmless, or a pattern of the user matches its name, with
    or without the component in front ("extra.*", "vae.extra.*")."""
    bare = name.removeprefix(f"{part}.")
    return matches(bare, HARMLESS) or matches(bare, patterns) or matches(f"{part}.{bare}", patterns)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return True if `name` matches one of the shell patterns; * matches dots too."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
