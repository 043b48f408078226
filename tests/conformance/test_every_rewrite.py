"""What every rewrite must do: fire as often as the model has such sites and nowhere else, change nothing else of the
module, compute the same, and leave no operators but those that it declares."""

import sys
from pathlib import Path

import pytest
import torch
from support.traced_parts import psnr
from torch import nn
from transformers import CLIPTextConfig

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.families.parts import autoencoder_kl, clip_text, unet2d
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.rewrites import (
    apply_rewrites,
    bodies,
    changed_floor_db,
    changes,
    kept_sites,
    marks,
    scale_rules,
)
from pocketdiffusion.export.trace import trace

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from full_size import TEXT, UNET, VAE  # noqa: E402

ATTENTIONS = {"text_encoder": 12, "unet": 32, "vae_decoder": 1, "vae_encoder": 1}
COUNTS = {  # of each rewrite; what is not named is 0
    "batched_attention": ATTENTIONS,
    "centred_group_norm": {"unet": 61, "vae_decoder": 30, "vae_encoder": 22},
    "centred_layer_norm": {"text_encoder": 25, "unet": 48},
    "chunked_attention": ATTENTIONS,
    "fused_attention": ATTENTIONS,
    "quick_gelu": {"text_encoder": 12},
    "split_einsum": {"unet": 32},
    "split_timesteps": {"unet": 1},
    "tanh_gelu": {"unet": 16},
    # modules: one for each residual block, which calls it twice or thrice, one at the end, one for the timestep
    "tanh_sigmoid": {"text_encoder": 12, "unet": 22 + 2, "vae_decoder": 14 + 1, "vae_encoder": 10 + 1},
    "tiled_decoder": {"vae_decoder": 6 + 2 + 1},  # residual blocks, upsamplers to two levels, the end
}


def module(name: str) -> nn.Module:
    with torch.device("meta"):
        if name == "text_encoder":
            return clip_text.TextEncoder(CLIPTextConfig(**TEXT))
        if name == "unet":
            return unet2d.Denoiser(unet2d.read_config("unet", UNET))
        config = autoencoder_kl.read_config("vae", VAE)
        decodes = name == "vae_decoder"
        return autoencoder_kl.LatentDecoder(config) if decodes else autoencoder_kl.LatentEncoder(config)


@pytest.mark.parametrize("graph", ATTENTIONS)
@pytest.mark.parametrize("rewrite", COUNTS)
def test_counts(graph: str, rewrite: str) -> None:
    assert apply_rewrites(module(graph), [rewrite]) == {rewrite: COUNTS[rewrite].get(graph, 0)}


def test_every_rewrite_is_counted() -> None:
    found = {file.stem for file in (ROOT / "export/rewrites").glob("*.py")} - {"__init__"}
    assert found == set(COUNTS)


in_each = pytest.mark.parametrize("rewrite", COUNTS)
NEAR_DB = {"fused_attention": 125.0, "quick_gelu": 140.0}  # the same arithmetic, where the others sum in another order


@pytest.fixture(scope="module")
def parts(tiny_checkpoint: Path) -> list[Component]:
    return components(open_checkpoint(str(tiny_checkpoint), progress=lambda line: None))


@in_each
def test_parity_of_complete_models(rewrite: str, parts: list[Component]) -> None:
    """Of a rewrite that changes the model, by the floor that it states."""
    floor = changed_floor_db([rewrite]) if changes([rewrite]) else NEAR_DB.get(rewrite, 120.0)
    for part in parts:
        module, example = load_module(part), part.example(0)
        names = sorted(module.state_dict())
        with torch.no_grad():
            before = module(*example.values())
            apply_rewrites(module, [rewrite])
            after = module(*example.values())
        assert sorted(module.state_dict()) == names
        for one, other in zip(before, after, strict=True):
            assert psnr(one.numpy(), other.numpy()) > floor


@in_each
def test_it_fires_on_its_own_sites_alone(rewrite: str, parts: list[Component]) -> None:
    """A second time it finds none, but for tanh_gelu, which sets the same method of a GEGLU again."""
    fired = {}
    for part in parts:
        module = part.build()
        fired[part.spec.name] = apply_rewrites(module, [rewrite])[rewrite]
        assert not fired[part.spec.name] or any(part.sites.get(kind, 0) for kind in marks([rewrite]))
        assert apply_rewrites(module, [rewrite])[rewrite] == 0 or rewrite == "tanh_gelu"
    assert any(fired.values())


@in_each
def test_it_does_not_fire_elsewhere(rewrite: str) -> None:
    others = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1), nn.Embedding(4, 4), nn.ReLU(), nn.BatchNorm2d(4))
    kinds = [type(child) for child in others]
    assert apply_rewrites(others, [rewrite]) == {rewrite: 0} and kept_sites(others, [rewrite]) == {}
    assert [type(child) for child in others] == kinds


@in_each
def test_it_leaves_the_operators_that_it_declares(rewrite: str, parts: list[Component]) -> None:
    declared = {operator for operators in marks([rewrite]).values() for operator in operators}
    own = {str(o._schema.name).rpartition("::")[2] for o in declared if o.namespace != "aten"}
    assert own and bodies([rewrite]).keys() <= declared and scale_rules([rewrite]).keys() <= own
    assert set(scale_rules([rewrite]).values()) <= {"attention", "norm"}
    beside = ["fused_attention"] if rewrite == "split_einsum" else []  # for the attention that it leaves alone
    found = set()
    for part in parts:
        graph = trace(part, [rewrite, *beside], open_batch=False).program.graph
        targets = {node.target for node in graph.nodes if node.op == "call_function"}
        found |= {target for target in targets if getattr(target, "namespace", "") == "pocketdiffusion"}
    others = {operator for operators in marks(beside).values() for operator in operators}
    assert found - others == {operator for operator in declared if operator.namespace == "pocketdiffusion"}
