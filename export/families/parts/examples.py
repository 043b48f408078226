"""Random inputs of a graph, with the shapes and value ranges that a sampler would pass."""

import torch
from torch import Tensor

from pocketdiffusion.runtime.graph_spec import GraphSpec


def noise(spec: GraphSpec, seed: int) -> dict[str, Tensor]:
    """Return normal noise for every input, float32, and a timestep from 0 to 999."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {t.name: torch.randn([int(n) for n in t.shape], generator=generator) for t in spec.inputs}
    if "timestep" in inputs:
        inputs["timestep"] = torch.randint(0, 1000, (1,), generator=generator).float()
    return inputs
