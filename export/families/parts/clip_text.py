"""CLIP's text model (https://arxiv.org/abs/2103.00020, section 2.4) as a graph: token ids to states.

Families combine this part with others: a module whose tensors have the names of checkpoints, the translation of older
names, and the number of sites, computed from the configuration only.
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
from pocketdiffusion.export.checkpoints.safetensors_header import match_tensors, rename
from pocketdiffusion.export.checkpoints.tensor import LazyTensor, Rows
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts.graph_call import GraphCall, Tensors
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
_POSITIONS = "text_model.embeddings.position_embedding.weight"
HIDDEN = -1e4  # representable in float16; after the softmax its weight is 0


def read_config(part: str, config: Mapping[str, Any]) -> CLIPTextConfig:
    """Return transformers' configuration, with its defaults for missing fields. Raise UserError if a field is wrong."""
    try:
        known = CLIPTextConfig.from_dict(dict(config))
        if known.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {known.hidden_act!r} is not an activation of transformers")
        return known
    except Exception as error:  # the classes of transformers' errors differ between its versions
        reason = " ".join(str(error).split())
        raise UserError(f"{part}: config.json is wrong: {reason}") from None


class TextEncoder(nn.Module):
    """The text encoder as a graph: input_ids [1, tokens] int32 -> last_hidden_state [1, tokens, c] and pooler_output
    [1, c], float32.

    `attention_mask` [1, tokens] int32 is 0 at the keys that are hidden from every query. Only configurations with
    `use_attention_mask` have it: diffusers' pipeline then passes the tokenizer's mask.
    """

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        model = CLIPTextModel(config)
        self.text_model = getattr(model, "text_model", model)  # transformers 4 has one more wrapper
        del self.text_model.embeddings.position_ids  # not a weight: made in `forward`, on the device of the ids

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        hidden = None if attention_mask is None else _hidden_keys(attention_mask)
        output = self.text_model(input_ids, attention_mask=hidden, position_ids=positions)
        return output.last_hidden_state, output.pooler_output


def uses_mask(config: CLIPTextConfig) -> bool:
    """Return True if diffusers' pipeline passes an attention mask to the text encoder (`use_attention_mask`)."""
    return bool(getattr(config, "use_attention_mask", False))


def _hidden_keys(mask: Tensor) -> Tensor:
    """Return the tensor that is added to the scores [1, heads, n, n]: 0 where a query sees a key, `HIDDEN` elsewhere.

    transformers uses a mask of rank 4 unchanged, so later keys must be hidden here too.
    """
    tokens = mask.shape[1]
    earlier = torch.ones(tokens, tokens, device=mask.device).tril()
    return (1 - earlier * mask[:, None, None].to(torch.float32)) * HIDDEN


def prompt_length(checkpoint: Checkpoint, tokenizer: str, part: str, text: CLIPTextConfig) -> int:
    """Return the number of tokens that the pipeline passes to the text encoder `part`: its tokenizer's
    model_max_length.

    Raise UserError if the text encoder has fewer positions, has no embedding for one of the tokenizer's ids, or needs a
    mask that the tokenizer does not make.
    """
    entry = checkpoint.model_index[tokenizer]
    found = read_tokenizer(checkpoint.tokenizers[tokenizer], entry[1])
    if found.max_length > text.max_position_embeddings:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_max_length {found.max_length} is more than the "
            f"{text.max_position_embeddings} of {part}'s max_position_embeddings: set it to "
            f"{text.max_position_embeddings}"
        )
    ids = {number: text for text, number in found.vocab.items()} | {token.id: token.text for token in found.added}
    if (last := max(ids)) >= text.vocab_size:
        raise UserError(
            f"{found.folder}: {ids[last]!r} has id {last}, and the embedding of {part} has {text.vocab_size} rows "
            f"(vocab_size in config.json): enlarge it (resize_token_embeddings), or remove the token"
        )
    if uses_mask(text) and not found.makes_mask:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_input_names has no attention_mask, which {part} needs "
            "(use_attention_mask in config.json): add it"
        )
    return found.max_length


def modern_names(part: str, stored: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return the tensors as `prefixed` does, without `text_projection`, which families that do not use it leave out."""
    return {name: ref for name, ref in prefixed(part, stored).items() if name != "text_projection.weight"}


def prefixed(part: str, stored: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return the tensors under the names `text_model.encoder...` of older checkpoints; transformers 5 writes
    `encoder...`.

    Left out: `position_ids`, a constant 0, 1, 2, ... in old files.
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
    """Return the graph `part`, for `tokens` tokens. `stored` has the names of the file.

    Raise UserError, naming the tensors, if the weights do not fit the configuration.
    """
    shapes = tensor_shapes(part, partial(TextEncoder, config))
    bound = match_tensors(shapes, modern_names(part, stored), part, allow_unexpected)
    config, weights = shorten(config, bound, tokens)
    inputs = [ids_spec(tokens)]
    if uses_mask(config):
        inputs.append(TensorSpec("attention_mask", (1, tokens), "int32", "1 for each token, 0 for padding"))
    width = config.hidden_size
    states = TensorSpec("last_hidden_state", (1, tokens, width), "float32", "a state for each token")
    pooled = TensorSpec("pooler_output", (1, width), "float32", "the state at the end of the text")
    spec = GraphSpec(part, tuple(inputs), (states, pooled))
    return Component(spec, partial(TextEncoder, config), weights, partial(example, config), sites(config))


def ids_spec(tokens: int) -> TensorSpec:
    """Return the input that every text encoder has."""
    return TensorSpec("input_ids", (1, tokens), "int32", "token ids, padded")


def call(module: nn.Module, outputs: Callable[[Any], Tensors]) -> GraphCall:
    """Return how calls of transformers' text encoder `module` are recorded. Token ids, and the mask if the pipeline
    passes one, become int32."""

    def inputs(arguments: Mapping[str, Any]) -> Tensors:
        given = {name: arguments.get(name) for name in ("input_ids", "attention_mask")}
        return {name: tensor.to(torch.int32) for name, tensor in given.items() if tensor is not None}

    return GraphCall(module, module, inputs, outputs)


def shorten(
    config: CLIPTextConfig, weights: Mapping[str, LazyTensor], tokens: int
) -> tuple[CLIPTextConfig, dict[str, LazyTensor]]:
    """Return the configuration and the weights of a text encoder for `tokens` tokens only: the rows of the position
    embedding after these are never read, and each converter would remove them in its own way."""
    short = copy(config)
    short.max_position_embeddings = tokens
    return short, {**weights, _POSITIONS: Rows(weights[_POSITIONS], tokens)}


def sites(config: CLIPTextConfig) -> dict[str, int]:
    """Return {operator: sites}. The activation has its own name, "quick_gelu" or "gelu". Attention with a mask is not
    counted, because it is not rewritten."""
    layers = config.num_hidden_layers
    attention = 0 if uses_mask(config) else layers
    return {"attention": attention, "layer_norm": 2 * layers + 1, config.hidden_act: layers}


def example(config: CLIPTextConfig, seed: int) -> dict[str, Tensor]:
    """Return the ids of a start token, some words, and end tokens: start and end are the last two ids of CLIP's
    vocabulary, whatever the file says."""
    generator = torch.Generator().manual_seed(seed)
    last, tokens = config.vocab_size - 1, config.max_position_embeddings
    ids = torch.full((1, tokens), last, dtype=torch.int32)
    words = torch.randint(0, last - 1, (min(8, tokens - 2),), generator=generator)
    ids[0, 0], ids[0, 1 : 1 + len(words)] = last - 1, words.int()
    inputs = {"input_ids": ids}
    if uses_mask(config):
        inputs["attention_mask"] = (torch.arange(tokens) < len(words) + 2).int()[None]
    return inputs
