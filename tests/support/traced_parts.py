"""Parts for the tests of export: a component of any small module, and Stable Diffusion 1.5's UNet with few channels."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.activations import GELUActivation, QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPAttention

from pocketdiffusion.export.backends.onnx.emit import emit
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families.parts import unet2d
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array
from support.family_cases import MICRO, SMALL_UNET

REWRITES = ("fused_attention", "quick_gelu")
# Stable Diffusion 1.5's own but for the channels: 320, 640, 1280, 1280 there, and a context of 768.
SD15_UNET = {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64, "attention_head_dim": 8}
SD15_SITES = {
    "attention": 32,
    "gelu": 16,
    "group_norm": 61,
    "layer_norm": 48,
    "silu": 68,
    "sinusoidal_embedding": 1,
}


def component_of(
    folder: Path,
    build: Callable[[], nn.Module],
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, tuple[int, ...]],
    sites: Mapping[str, int],
    name: str = "part",
) -> Component:
    """A component with seeded random weights, none of them zero or one, written to `folder`/part.safetensors."""
    torch.manual_seed(0)
    module = build()
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    save_file({key: tensor.contiguous() for key, tensor in module.state_dict().items()}, folder / "part.safetensors")
    spec = GraphSpec(
        name,
        tuple(TensorSpec(key, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in inputs.items()),
        tuple(TensorSpec(key, shape, "float32") for key, shape in outputs.items()),
    )
    return Component(spec, build, read_header(folder / "part.safetensors"), lambda seed: dict(inputs), sites)


def text_model(activation: str = "quick_gelu") -> nn.Module:
    """CLIP's text model of transformers with three layers, 32 wide, with seeded random weights."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act=activation,
    )
    model: nn.Module = CLIPTextModel(config).eval()
    return model


def count_sites(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of modules of each kind in a model of diffusers or transformers that is called with `inputs`;
    for SiLU, of which several places share one module, the number of its calls."""
    kinds: dict[str, tuple[type, ...]] = {
        "attention": (Attention, CLIPAttention),
        "group_norm": (nn.GroupNorm,),
        "layer_norm": (nn.LayerNorm,),
        "gelu": (GEGLU, GELUActivation),
        "quick_gelu": (QuickGELUActivation,),
        "sinusoidal_embedding": (Timesteps,),
    }
    counts = Counter(kind for child in module.modules() for kind, types in kinds.items() if isinstance(child, types))
    hooks = [
        child.register_forward_hook(lambda *_: counts.update(["silu"]))
        for child in module.modules()
        if isinstance(child, nn.SiLU)
    ]
    module(*inputs.values())
    for hook in hooks:
        hook.remove()
    return dict(counts)


def narrow_sd15_unet(folder: Path) -> Component:
    """The UNet of Stable Diffusion 1.5 with few channels, on latents of 16x16."""
    config = unet2d.read_config("unet", {"sample_size": 16, **SD15_UNET})
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "sample": torch.randn(1, 4, 16, 16, generator=generator),
        "timestep": torch.tensor([601.0]),
        "encoder_hidden_states": torch.randn(1, 77, 64, generator=generator),
    }
    build = partial(unet2d.Denoiser, config)
    return component_of(folder, build, inputs, {"out_sample": (1, 4, 16, 16)}, unet2d.sites(config), "unet")


def micro_unet(folder: Path, **settings: Any) -> Component:
    """The UNet of `family_cases.MICRO`, with 5 residual blocks and one transformer, but for `settings`."""
    config = unet2d.read_config("unet", {**SMALL_UNET, **MICRO.unet, **settings})
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([601.0]),
        "encoder_hidden_states": torch.randn(1, 77, 16, generator=generator),
    }
    build = partial(unet2d.Denoiser, config)
    return component_of(folder, build, inputs, {"out_sample": (1, 4, 8, 8)}, unet2d.sites(config), "unet")


def artifact(profile: str = "ort", recipe: str = "fp32", rewrites: tuple[str, ...] = REWRITES) -> Artifact:
    return Artifact("onnx", profile, recipe, "cpu", rewrites)


def emit_and_run(part: Component, wanted: Artifact, folder: Path) -> tuple[Graph, dict[str, Array], dict[str, Array]]:
    """Exports, opens the file and runs it on the component's example. The artifact's outputs, then torch's."""
    graph = emit(part, wanted, folder, open_batch=False)
    example = part.example(0)
    found = open_runner(folder / graph.path, graph.spec, threads=1)({k: t.numpy() for k, t in example.items()})
    with torch.no_grad():
        outputs = load_module(part)(*example.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return graph, found, {t.name: o.numpy() for t, o in zip(part.spec.outputs, outputs, strict=True)}


def psnr(reference: Array, found: Array) -> float:
    """In dB, with the largest magnitude of the reference as the peak."""
    error = np.sqrt(np.mean((reference.astype(np.float64) - found) ** 2))
    return float(20 * np.log10(np.abs(reference).max() / error)) if error else float("inf")
