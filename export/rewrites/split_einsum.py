"""Rule: the transformers of a UNet work channels-first, [batch, channels, 1, tokens], as Apple's Neural Engine lays out
its memory, and each attention is ONE operator, `pocketdiffusion::split_attention`, between 1x1 convolutions.

Linear layers become 1x1 convolutions, LayerNorm is computed over axis 1, GEGLU splits axis 1 in half, and a picture is
reshaped at the beginning and the end. The operator cuts query, key and value into heads and attends head by head, so
that each product is einsum's `nchw,nwhu->nchu`, which needs no transpose; only the keys are transposed, once for all
heads. They are scaled there too: before the product, where it keeps the scores small in float16, and after the
transpose, so that no converter folds the scale into the weights of a projection and rounds those a second time.

Fires on diffusers' `Transformer2DModel` for pictures whose blocks are `BasicTransformerBlock`s of LayerNorm, plain
attention to itself and to the prompt (plain as in `fused_attention`) and GEGLU: all of them in a Stable Diffusion UNet.
Must NOT fire on one with another norm, activation, attention or position, nor on one with a site that another rewrite
has changed: it is applied first. It does not change the text encoder and the VAE, see `kept`; `fused_attention`,
applied after it, changes those. Weights keep their names and their bytes. A mask is an error when the module is traced.

Source: "Deploying Transformers on the Apple Neural Engine",
https://machinelearning.apple.com/research/neural-engine-transformers, principles 1 to 3; Apple's implementation for
Stable Diffusion is python_coreml_stable_diffusion/attention.py, https://github.com/apple/ml-stable-diffusion.
"""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPAttention

from pocketdiffusion.export.rewrites import centred_layer_norm, fused_attention


def by_head(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Return softmax(scale * q k^T) v for each head, [batch, channels, 1, n]. Query [batch, channels, 1, n], key and
    value [batch, channels, 1, m].

    The channels of a head are neighbours.
    """
    turned = key.transpose(1, 3) * scale
    mixed = []
    for q, k, v in zip(query.chunk(heads, 1), turned.chunk(heads, 3), value.chunk(heads, 1), strict=True):
        weights = torch.softmax(torch.einsum("bkhc,bchq->bkhq", k, q), dim=1)
        mixed.append(torch.einsum("bchk,bkhq->bchq", v, weights))
    return torch.cat(mixed, 1)


def by_column(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the LayerNorm of x [batch, channels, 1, tokens] over axis 1, centred before it is squared. Weight and
    bias: [channels]."""
    centred = x - x.mean(1, keepdim=True)
    normal = centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + eps)
    return normal * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


split_attention = torch.library.custom_op("pocketdiffusion::split_attention", by_head, mutates_args=())
channel_layer_norm = torch.library.custom_op("pocketdiffusion::channel_layer_norm", by_column, mutates_args=())


@split_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    return query.new_empty(query.shape[0], value.shape[1], *query.shape[2:])


@channel_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


MARKS = {
    "attention": torch.ops.pocketdiffusion.split_attention.default,
    "layer_norm": (torch.ops.pocketdiffusion.channel_layer_norm.default, torch.ops.aten.layer_norm.default),
}
SCALE_RULES = {
    torch.ops.pocketdiffusion.split_attention.default: "attention",
    torch.ops.pocketdiffusion.channel_layer_norm.default: "norm",
}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of attentions changed."""
    found = [(name, child) for name, child in module.named_modules() if _fits(child)]
    for name, child in found:
        assert isinstance(child, Transformer2DModel)
        module.set_submodule(name, ChannelsFirst(child))
    return sum(isinstance(part, Attention) for _, child in found for part in child.modules())


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the attentions of `module`, before any rewrite, that `apply` does not change."""
    changed = {part for child in module.modules() if _fits(child) for part in child.modules()}
    return dict(Counter(_why(child) for child in module.modules() if _attends(child) and child not in changed))


def _attends(module: nn.Module) -> bool:
    return isinstance(module, Attention | CLIPAttention)


def _why(attention: Any) -> str:
    if isinstance(attention, CLIPAttention):
        return "belongs to a text encoder, which runs once a prompt; Apple's converter leaves it too"
    if attention.heads == 1:
        return "belongs to a VAE, has one head and so nothing to split; Apple's converter leaves it too"
    return "lies in a transformer of another kind"


def _fits(module: Any) -> bool:
    return (
        type(module) is Transformer2DModel
        and module.is_input_continuous
        and all(_is_plain(block) for block in module.transformer_blocks)
    )


def _is_plain(block: Any) -> bool:
    if type(block) is not BasicTransformerBlock or block.norm_type != "layer_norm" or block.attn2 is None:
        return False
    if block.pos_embed is not None or hasattr(block, "fuser") or type(block.ff) is not FeedForward:
        return False
    return (
        [type(layer) for layer in block.ff.net] == [GEGLU, nn.Dropout, nn.Linear]
        and all(centred_layer_norm._is_plain(norm) for norm in (block.norm1, block.norm2, block.norm3))
        and all(_is_plain_attention(attention) for attention in (block.attn1, block.attn2))
    )


def _is_plain_attention(attention: Any) -> bool:
    """Return True for projections, heads and an output projection without norms, residuals or scales, which in a UNet
    belong to the block."""
    return (
        type(attention) is Attention
        and fused_attention._is_plain(attention)
        and attention.group_norm is None
        and attention.spatial_norm is None
        and not attention.norm_cross
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
        and all(type(p) is nn.Linear for p in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]))
    )


class Pointwise(nn.Module):
    """A replacement of `torch.nn.Linear` by a 1x1 convolution with the same bias, and the weight as [out, in, 1, 1]."""

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        kernel = original.weight.detach()[:, :, None, None]
        self.weight = nn.Parameter(kernel, requires_grad=original.weight.requires_grad)
        self.bias = original.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, [batch, out, h, w], of x [batch, in, h, w]."""
        return F.conv2d(x, self.weight, self.bias)


class ChannelNorm(nn.Module):
    """A replacement of `torch.nn.LayerNorm` that keeps the names of weight and bias."""

    def __init__(self, original: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer norm over axis 1 of x [batch, channels, 1, tokens], in the shape of x."""
        normal: Tensor = channel_layer_norm(x, self.weight, self.bias, self.eps)
        return normal


class GatedGELU(nn.Module):
    """A replacement of diffusers' `GEGLU` that keeps the name of its projection."""

    def __init__(self, original: GEGLU) -> None:
        super().__init__()
        self.proj, self.gelu = Pointwise(original.proj), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, out, 1, tokens] of x [batch, in, 1, tokens]."""
        value, gate = self.proj(x).chunk(2, dim=1)
        gated: Tensor = value * self.gelu(gate)
        return gated


class SplitAttention(nn.Module):
    """A replacement of diffusers' `Attention` that keeps the names of its projections."""

    def __init__(self, original: Attention) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (Pointwise(p) for p in (original.to_q, original.to_k, original.to_v))
        self.to_out = nn.ModuleList([Pointwise(original.to_out[0])])
        self.heads = original.heads
        channels = original.to_q.out_features // original.heads
        self.scale = original.scale if type(original.processor) is AttnProcessor else channels**-0.5

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the attention of x [batch, channels, 1, n] to context [batch, any, 1, m], in the shape of x."""
        mixed = split_attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads, self.scale)
        projected: Tensor = self.to_out[0](mixed)
        return projected


class ChannelsFirstBlock(nn.Module):
    """A replacement of diffusers' `BasicTransformerBlock` that keeps the names of its parts."""

    def __init__(self, original: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = map(ChannelNorm, (original.norm1, original.norm2, original.norm3))
        self.attn1, self.attn2 = SplitAttention(original.attn1), SplitAttention(original.attn2)
        gate, _, out = original.ff.net
        self.ff = nn.ModuleDict({"net": nn.Sequential(GatedGELU(gate), nn.Identity(), Pointwise(out))})
        self.only_cross_attention = original.only_cross_attention

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the block's output, in the shape of x [batch, channels, 1, n]. Context: [batch, any, 1, m]."""
        normal = self.norm1(x)
        x = x + self.attn1(normal, context if context is not None and self.only_cross_attention else normal)
        normal = self.norm2(x)
        x = x + self.attn2(normal, normal if context is None else context)
        added: Tensor = x + self.ff["net"](self.norm3(x))
        return added


class ChannelsFirst(nn.Module):
    """A replacement of diffusers' `Transformer2DModel` that keeps the names of its parts."""

    def __init__(self, original: Transformer2DModel) -> None:
        super().__init__()
        self.norm = original.norm
        self.proj_in, self.proj_out = (
            Pointwise(p) if isinstance(p, nn.Linear) else p for p in (original.proj_in, original.proj_out)
        )
        self.transformer_blocks = nn.ModuleList(map(ChannelsFirstBlock, original.transformer_blocks))

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **options: object,
    ) -> tuple[Tensor]:
        """Return the output, in the shape of hidden_states [batch, channels, h, w]. encoder_hidden_states: [batch,
        tokens, any]."""
        if attention_mask is not None or encoder_attention_mask is not None:
            raise ValueError("split attention accepts no mask")
        context = encoder_hidden_states
        if context is not None:
            context = context.transpose(1, 2).unsqueeze(2)
        x = self.proj_in(self.norm(hidden_states))
        picture = x.shape
        x = x.reshape(*picture[:2], 1, -1)
        for block in self.transformer_blocks:
            x = block(x, context)
        return (self.proj_out(x.reshape(picture)) + hidden_states,)
