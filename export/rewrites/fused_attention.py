"""Rule: an attention module becomes its four projections around ONE operator, `pocketdiffusion::attention`.

The operator reads query, key and value as the projections return them, [batch, tokens, channels], so that a backend
decides how heads are split; traced through `view` and `transpose`, the heads would have to be found again by pattern.

Fires on diffusers' `Attention` with the plain processors (AttnProcessor, AttnProcessor2_0) and on the attention of a
CLIP text model, where the only mask is the causal one. Must NOT fire on attention that normalises queries or keys, adds
projections or rotary positions (other processors), nor on CLIP's vision tower, which is not causal, nor on a text model
whose configuration has `use_attention_mask`, since the operator has no mask. In a UNet a mask is an error when the
module is traced.

Source: scaled dot-product attention, https://arxiv.org/abs/1706.03762, section 3.2.
"""

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPAttention


@torch.library.custom_op("pocketdiffusion::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    """Return softmax(scale * q k^T) v for each head, [batch, n, channels]. Query [batch, n, channels], key and value
    [batch, m, channels].

    `causal` hides from each query the keys after its own position.
    """
    q, k, v = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return mixed.transpose(1, 2).flatten(-2).contiguous()


@attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


MARKS = {"attention": torch.ops.pocketdiffusion.attention.default}
SCALE_RULES = {torch.ops.pocketdiffusion.attention.default: "attention"}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of attentions changed."""
    return install(module, attention)


def install(module: nn.Module, operator: Callable[..., Tensor]) -> int:
    """Rewrite `module` as `apply` does, with any operator that has the arguments of `attention`."""
    found = [(name, child) for name, child in module.named_modules() if _is_plain(child)]
    for name, child in found:
        if isinstance(child, Attention):
            scale = child.scale if type(child.processor) is AttnProcessor else None
            child.set_processor(FusedProcessor(scale, operator))
        else:
            module.set_submodule(name, FusedCLIPAttention(child, operator))
    return len(found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the attention modules that are not rewritten."""
    reasons = (_reason(child) for child in module.modules() if isinstance(child, Attention | CLIPAttention))
    return dict(Counter(reason for reason in reasons if reason))


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, Attention | CLIPAttention) and not _reason(module)


def _reason(module: Attention | CLIPAttention) -> str:
    """Return the reason why an attention module is not rewritten, "" if it is."""
    if isinstance(module, CLIPAttention):
        if not isinstance(module.config, CLIPTextConfig):
            return "is not of a text model, and not causal"
        return "takes an attention mask" if getattr(module.config, "use_attention_mask", False) else ""
    if module.norm_q is not None or module.norm_k is not None:
        return "normalises its queries or keys"
    if type(module.processor) not in (AttnProcessor, AttnProcessor2_0):
        return f"has another processor, {type(module.processor).__name__}"
    return ""


class FusedProcessor:
    """The processor of a diffusers `Attention`. `scale` None means 1/sqrt(channels of a head)."""

    def __init__(self, scale: float | None, operator: Callable[..., Tensor] = attention) -> None:
        self.scale, self.operator = scale, operator

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError("fused attention accepts no mask")
        x = hidden_states if attn.spatial_norm is None else attn.spatial_norm(hidden_states, temb)
        image = x.shape if x.ndim == 4 else None
        if image is not None:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)

        query, key, value = attn.to_q(x), attn.to_k(context), attn.to_v(context)
        scale = (query.shape[-1] // attn.heads) ** -0.5 if self.scale is None else self.scale
        x = attn.to_out[0](self.operator(query, key, value, attn.heads, scale, False))

        if image is not None:
            x = x.transpose(1, 2).reshape(image)
        if attn.residual_connection:
            x = x + hidden_states
        scaled: Tensor = x / attn.rescale_output_factor
        return scaled


class FusedCLIPAttention(nn.Module):
    """A replacement of transformers' `CLIPAttention` in a text model that keeps the names of its projections."""

    def __init__(self, original: CLIPAttention, operator: Callable[..., Tensor] = attention) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = original.q_proj, original.k_proj, original.v_proj
        self.out_proj = original.out_proj
        self.heads, self.scale, self.operator = original.num_heads, original.scale, operator

    def forward(self, hidden_states: Tensor, *masks: Tensor | None, **options: object) -> tuple[Tensor, None]:
        """Return the attention's output, in the shape of hidden_states [batch, tokens, channels], and None for the
        attention weights."""
        query, key, value = (project(hidden_states) for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed: Tensor = self.out_proj(self.operator(query, key, value, self.heads, self.scale, True))
        return mixed, None
