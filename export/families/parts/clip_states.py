"""CLIP's text model as a graph that returns the states before its last layer: for one encoder or for two side by side.

Families combine this part with others; it extends `clip_text`. The states are transformers' hidden_states[-2]: no
normalisation follows them.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pocketdiffusion.export.arguments import tensor_shapes
from pocketdiffusion.export.checkpoints.safetensors_header import match_tensors
from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts import clip_text
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec


def read_config(part: str, config: Mapping[str, Any]) -> CLIPTextConfig:
    """Return the configuration as `clip_text.read_config` does, without a mask, which pipelines that use these states
    never pass."""
    known = copy(clip_text.read_config(part, config))
    known.use_attention_mask = False
    return known


class StateEncoder(nn.Module):
    """A text encoder as a graph: input_ids [1, tokens] int32 -> hidden_states [1, tokens, c], float32. The last layer
    and the normalisation after it, which nothing uses, are left out."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        short = copy(config)
        short.num_hidden_layers = config.num_hidden_layers - 1
        model = CLIPTextModel(short)
        self.text_model = getattr(model, "text_model", model)  # transformers 4 has one more wrapper
        self.text_model.final_layer_norm = nn.Identity()
        del self.text_model.embeddings.position_ids  # not a weight: made in `forward`, on the device of the ids

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        return (self.text_model(input_ids, position_ids=_positions(input_ids)).last_hidden_state,)


class ProjectedEncoder(nn.Module):
    """A text encoder as a graph: input_ids [1, tokens] int32 -> hidden_states [1, tokens, c] and text_embeds [1, e],
    float32: the projection of the state at the end token after all layers."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        model = CLIPTextModelWithProjection(config)
        self.text_model, self.text_projection = model.text_model, model.text_projection
        del self.text_model.embeddings.position_ids

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        inputs: list[Tensor] = []  # of the last layer

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            inputs.append(args[0] if args else kwargs["hidden_states"])

        hook = self.text_model.encoder.layers[-1].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            output = self.text_model(input_ids, position_ids=_positions(input_ids))
        finally:
            hook.remove()
        (states,) = inputs
        return states, self.text_projection(output.pooler_output)


def _positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device)[None]


def state_component(
    part: str,
    config: CLIPTextConfig,
    stored: Mapping[str, LazyTensor],
    tokens: int,
    allow_unexpected: Sequence[str],
) -> Component:
    """Return the graph `part` of `StateEncoder`, for `tokens` tokens. `stored` has the names of the file.

    Raise UserError, naming the tensors, if the weights do not fit the configuration.
    """
    layers = config.num_hidden_layers - 1
    unused = (f"text_model.encoder.layers.{layers}.", "text_model.final_layer_norm.")
    named = clip_text.modern_names(part, stored)
    named = {name: ref for name, ref in named.items() if not name.startswith(unused)}
    outputs = (_states(tokens, config.hidden_size),)
    return _component(part, config, StateEncoder, named, tokens, outputs, _sites(config, layers, 0), allow_unexpected)


def projected_component(
    part: str,
    config: CLIPTextConfig,
    stored: Mapping[str, LazyTensor],
    tokens: int,
    allow_unexpected: Sequence[str],
) -> Component:
    """Return the graph `part` of `ProjectedEncoder`, as `state_component` does."""
    named = clip_text.prefixed(part, stored)
    embeds = TensorSpec("text_embeds", (1, config.projection_dim), "float32", "the embedding of the whole text")
    outputs = (_states(tokens, config.hidden_size), embeds)
    sites = _sites(config, config.num_hidden_layers, 1)
    return _component(part, config, ProjectedEncoder, named, tokens, outputs, sites, allow_unexpected)


def _states(tokens: int, width: int) -> TensorSpec:
    return TensorSpec("hidden_states", (1, tokens, width), "float32", "a state for each token, before the last layer")


def _sites(config: CLIPTextConfig, layers: int, norms: int) -> dict[str, int]:
    counts = {"attention": layers, "layer_norm": 2 * layers + norms, config.hidden_act: layers}
    return {kind: count for kind, count in counts.items() if count}


def _component(
    part: str,
    config: CLIPTextConfig,
    module: Callable[[CLIPTextConfig], nn.Module],
    named: Mapping[str, LazyTensor],
    tokens: int,
    outputs: tuple[TensorSpec, ...],
    sites: Mapping[str, int],
    allow_unexpected: Sequence[str],
) -> Component:
    bound = match_tensors(tensor_shapes(part, partial(module, config)), named, part, allow_unexpected)
    config, weights = clip_text.shorten(config, bound, tokens)
    spec = GraphSpec(part, (clip_text.ids_spec(tokens),), outputs)
    return Component(spec, partial(module, config), weights, partial(clip_text.example, config), sites)
