from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from support.traced_parts import REWRITES, SD15_SITES, component_of, narrow_sd15_unet
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from pocketdiffusion.export.rewrites import check_sites
from pocketdiffusion.export.trace import trace
from pocketdiffusion.runtime.errors import ProofError


def test_sites_of_stable_diffusion_15(tmp_path: Path) -> None:
    part = narrow_sd15_unet(tmp_path)
    assert part.sites == SD15_SITES
    traced = trace(part, REWRITES, open_batch=False)
    assert traced.rewrites == {"fused_attention": 32, "quick_gelu": 0}
    assert all(isinstance(tensor, FakeTensor) for tensor in traced.program.state_dict.values())


@pytest.mark.parametrize("kind", ["attention", "silu"])
def test_a_site_too_few_stops(tmp_path: Path, kind: str) -> None:
    part = narrow_sd15_unet(tmp_path)
    wrong = replace(part, sites={**part.sites, kind: part.sites[kind] + 1})
    sites = SD15_SITES[kind]
    message = f"unet: {sites} {kind} sites were found in the traced graph, and .* configuration requires {sites + 1}"
    with pytest.raises(ProofError, match=message):
        trace(wrong, REWRITES, open_batch=False)


def test_a_site_too_many_stops(tmp_path: Path) -> None:
    build = partial(nn.Sequential, nn.Linear(4, 4), nn.SiLU())
    part = component_of(tmp_path, build, {"x": torch.randn(1, 4)}, {"y": (1, 4)}, {})
    with pytest.raises(
        ProofError, match="part: 1 silu sites were found in the traced graph, and the model's configuration requires 0"
    ):
        trace(part, REWRITES, open_batch=False)


def test_without_a_rewrite_its_sites_are_not_asked_for(tmp_path: Path) -> None:
    traced = trace(narrow_sd15_unet(tmp_path), (), open_batch=False)
    assert traced.rewrites == {}
    assert not any("pocketdiffusion" in str(node.target) for node in traced.program.graph.nodes)


def test_open_batch(tmp_path: Path) -> None:
    program = trace(narrow_sd15_unet(tmp_path), REWRITES, open_batch=True).program
    shapes = {n.name: n.meta["val"].shape for n in program.graph.nodes if n.name in program.graph_signature.user_inputs}
    assert [isinstance(shape[0], int) for shape in shapes.values()] == [False, True, False]


def test_check_sites_compares_both_ways() -> None:
    check_sites("unet", {"silu": 2}, {"silu": 2, "gelu": 0})
    for expected, found in (({"silu": 2}, {}), ({}, {"silu": 2}), ({"silu": 2}, {"silu": 1})):
        with pytest.raises(ProofError, match="unet"):
            check_sites("unet", expected, found)
