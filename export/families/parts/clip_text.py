"""CLIP's text model (https://arxiv.org/abs/2103.00020, section 2.4) as a graph: token ids to states.

One of the parts that families are made of: a module whose tensors have the names of checkpoints, the translation of
older names, and the number of sites, from the configuration alone.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.activations import ACT2FN

from pocketdiffusion.export.arguments import tensor_shapes
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.safetensors_header import bind, rename
from pocketdiffusion.export.checkpoints.tensor import LazyTensor, Rows
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts.graph_call import GraphCall, Tensors
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

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


def prompt_length(checkpoint: Checkpoint, tokenizer: str, part: str, text: CLIPTextConfig) -> int:
    """How many tokens the pipeline gives the text encoder `part`: its tokenizer's model_max_length.

    Raises UserError where the text encoder has fewer positions, no embedding for one of the tokenizer's ids, or wants
    a mask that the tokenizer does not make.
    """
    entry = checkpoint.model_index[tokenizer]
    found = read_tokenizer(checkpoint.tokenizers[tokenizer], entry[1])
    if found.max_length > text.max_position_embeddings:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_max_length {found.max_length} is more than the "
            f"{text.max_position_embeddings} of {part}'s max_position_embeddings: set it to that"
        )
    ids = {number: text for text, number in found.vocab.items()} | {token.id: token.text for token in found.added}
    if (last := max(ids)) >= text.vocab_size:
        raise UserError(
            f"{found.folder}: {ids[last]!r} has id {last}, and the embedding of {part} has {text.vocab_size} rows "
            f"(vocab_size in config.json): enlarge it (resize_token_embeddings), or take the token away"
        )
    if takes_mask(text) and not found.gives_mask:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_input_names leaves out attention_mask, which "
            f"{part} wants (use_attention_mask in config.json)"
        )
    return found.max_length


def modern_names(part: str, stored: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """As `prefixed`, without `text_projection`, which a family that does not use it never asks for."""
    return {name: ref for name, ref in prefixed(part, stored).items() if name != "text_projection.weight"}


def prefixed(part: str, stored: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Checkpoints say `text_model.encoder...`; transformers 5 writes `encoder...`.

    Left out: `position_ids`, which old files hold and which is 0, 1, 2, ....
    """
    names = {name: name if name.startswith("text_") else f"text_model.{name}" for name in stored}
    renamed = rename(stored, names, part)
    return {name: ref for name, ref in renamed.items() if name != "text_model.embeddings.position_ids"}


def component(
    part: str,
    config: CLIPTextConfig,
    stored: Mapping[str, LazyTensor],
    tokens: int,
    allow_unexpected: Sequence[str],
) -> Component:
    """The graph `part`, which takes `tokens` tokens. `stored` has the names of the file.

    Raises UserError, naming the tensors, where the weights do not fit the configuration.
    """
    shapes = tensor_shapes(part, partial(TextEncoder, config))
    bound = bind(shapes, modern_names(part, stored), part, allow_unexpected)
    config, weights = shorten(config, bound, tokens)
    given = [ids_spec(tokens)]
    if takes_mask(config):
        given.append(TensorSpec("attention_mask", (1, tokens), "int32", "1 for each token, 0 for padding"))
    width = config.hidden_size
    states = TensorSpec("last_hidden_state", (1, tokens, width), "float32", "a state for each token")
    pooled = TensorSpec("pooler_output", (1, width), "float32", "the state at the end of the text")
    spec = GraphSpec(part, tuple(given), (states, pooled))
    return Component(spec, partial(TextEncoder, config), weights, partial(example, config), sites(config))


def ids_spec(tokens: int) -> TensorSpec:
    """The input of every text encoder."""
    return TensorSpec("input_ids", (1, tokens), "int32", "token ids, padded")


def call(module: nn.Module, outputs: Callable[[Any], Tensors]) -> GraphCall:
    """A call of transformers' text encoder `module`, whose token ids and mask, where the pipeline gives one, become
    int32."""

    def inputs(arguments: Mapping[str, Any]) -> Tensors:
        given = {name: arguments.get(name) for name in ("input_ids", "attention_mask")}
        return {name: tensor.to(torch.int32) for name, tensor in given.items() if tensor is not None}

    return GraphCall(module, module, inputs, outputs)


def shorten(
    config: CLIPTextConfig, weights: Mapping[str, LazyTensor], tokens: int
) -> tuple[CLIPTextConfig, dict[str, LazyTensor]]:
    """The configuration and the weights of a text encoder that is only ever given `tokens` tokens: the rows of its
    position embedding behind those are never looked up, and a converter would cut them off in its own way."""
    short = copy(config)
    short.max_position_embeddings = tokens
    return short, {**weights, _POSITIONS: Rows(weights[_POSITIONS], tokens)}


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
