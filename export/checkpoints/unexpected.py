"""Tensors of a weight file that nothing uses: which are known to be harmless, and which a user lets pass."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

# What training and converting leave behind, as shell patterns. diffusers passes them over as well.
HARMLESS = (
    "model_ema.*",  # LitEma: a running mean beside the weights, and its `decay` and `num_updates`
    "loss.*",  # of an autoencoder's training: `loss.logvar`, the discriminator, LPIPS
    "*position_ids",  # 0, 1, 2, ...: written by transformers until 4.31
    "text_projection.weight",  # of CLIP's whole model; Stable Diffusion takes the states before it
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
    """Whether a tensor that nothing uses is passed over: a harmless one, or one that a pattern of the user's names,
    with or without the component before it ("extra.*", "vae.extra.*")."""
    bare = name.removeprefix(f"{part}.")
    return matches(bare, HARMLESS) or matches(bare, patterns) or matches(f"{part}.{bare}", patterns)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """By the rules of a shell, where * takes dots as well."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
