"""CLIP's text model (https://arxiv.org/abs/2103.00020, section 2.4) as a graph: token ids to states.

One of the parts that families are made of: a module whose tensors have the names of checkpoints, the translation of
older names, and the number of sites, from the configuration alone.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.activations import ACT2FN

from pocketdiffusion.export.checkpoints.safetensors_header import rename
from pocketdiffusion.export.component import TensorRef
from pocketdiffusion.runtime.errors import UserError

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
_POSITIONS = "text_model.embeddings.position_embedding.weight"
HIDDEN = -1e4  # float16 holds it, and its weight is 0


def read_config(part: str, config: Mapping[str, Any]) -> CLIPTextConfig:
    """transformers' configuration, with its defaults where the file is silent. Raises UserError where it is wrong."""
    try:
        known = CLIPTextConfig.from_dict(dict(config))
        if known.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {known.hidden_act!r} is no activation that transformers has")
        return known
    except Exception as error:  # transformers checks the fields with classes of errors that differ between its versions
        reason = " ".join(str(error).split())
        raise UserError(f"{part}: config.json is wrong: {reason}") from None


class TextEncoder(nn.Module):
    """input_ids [1, tokens] int32 to last_hidden_state [1, tokens, c] and pooler_output [1, c], float32.

    `attention_mask` [1, tokens] int32 is 0 at the keys that no query sees; it is for configurations with
    `use_attention_mask`, to which diffusers' pipeline gives the tokenizer's.
    """

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        model = CLIPTextModel(config)
        self.text_model = getattr(model, "text_model", model)  # transformers 4 has a wrapper more
        del self.text_model.embeddings.position_ids  # no weight: made in `forward`, so that it is real on every device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        hidden = None if attention_mask is None else _hidden_keys(attention_mask)
        output = self.text_model(input_ids, attention_mask=hidden, position_ids=positions)
        return output.last_hidden_state, output.pooler_output


def takes_mask(config: CLIPTextConfig) -> bool:
    """Whether diffusers' pipeline gives the text encoder an attention mask."""
    return bool(getattr(config, "use_attention_mask", False))


def _hidden_keys(mask: Tensor) -> Tensor:
    """What is added to the scores [1, heads, n, n]: nothing where a query sees a key, else a number whose weight is 0.

    transformers takes a mask of rank 4 as it is, so later keys must be hidden here too.
    """
    tokens = mask.shape[1]
    earlier = torch.ones(tokens, tokens, device=mask.device).tril()
    return (1 - earlier * mask[:, None, None].to(torch.float32)) * HIDDEN


def modern_names(part: str, stored: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """Checkpoints say `text_model.encoder...`; transformers 5 writes `encoder...`.

    Left out: `position_ids`, which old files hold and which is 0, 1, 2, ..., and `text_projection`, which a family
    that does not use it never asks for.
    """
    names = {name: name if name.startswith("text_") else f"text_model.{name}" for name in stored}
    unused = ("text_model.embeddings.position_ids", "text_projection.weight")
    return {name: ref for name, ref in rename(stored, names, part).items() if name not in unused}


def shorten(
    config: CLIPTextConfig, weights: Mapping[str, TensorRef], tokens: int
) -> tuple[CLIPTextConfig, dict[str, TensorRef]]:
    """The configuration and the weights of a text encoder that is only ever given `tokens` tokens: the rows of its
    position embedding behind those are never looked up, and a converter would cut them off in its own way."""
    short = copy(config)
    short.max_position_embeddings = tokens
    ref = weights[_POSITIONS]
    row = ref.nbytes // ref.shape[0]
    cut = replace(ref, nbytes=tokens * row, shape=(tokens, *ref.shape[1:]))
    return short, {name: cut if name == _POSITIONS else weight for name, weight in weights.items()}


def sites(config: CLIPTextConfig) -> dict[str, int]:
    """The activation is counted under its own name: "quick_gelu", "gelu". Attention with a mask is not rewritten."""
    layers = config.num_hidden_layers
    attention = 0 if takes_mask(config) else layers
    return {"attention": attention, "layer_norm": 2 * layers + 1, config.hidden_act: layers}


def example(config: CLIPTextConfig, seed: int) -> dict[str, Tensor]:
    """A start, some words, and ends: the two specials are the last of CLIP's vocabulary, whatever the file says."""
    generator = torch.Generator().manual_seed(seed)
    last, tokens = config.vocab_size - 1, config.max_position_embeddings
    ids = torch.full((1, tokens), last, dtype=torch.int32)
    words = torch.randint(0, last - 1, (min(8, tokens - 2),), generator=generator)
    ids[0, 0], ids[0, 1 : 1 + len(words)] = last - 1, words.int()
    inputs = {"input_ids": ids}
    if takes_mask(config):
        inputs["attention_mask"] = (torch.arange(tokens) < len(words) + 2).int()[None]
    return inputs
