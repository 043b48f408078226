from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models import activations
from support.traced_parts import SD15_SITES, emit_and_run, micro_unet, narrow_sd15_unet, psnr
from support.traced_parts import artifact as onnx_artifact
from torch import nn
from transformers.activations import GELUActivation, GELUTanh, QuickGELUActivation

from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.rewrites import apply_rewrites, changed_floor_db, changes
from pocketdiffusion.export.rewrites.tanh_gelu import MARKS, apply, kept, tanh_gelu
from pocketdiffusion.export.targets import load_target, target_names
from pocketdiffusion.export.trace import trace

WITH = ("fused_attention", "tanh_gelu")


def test_fires_on_every_gelu(tmp_path: Path) -> None:
    part = narrow_sd15_unet(tmp_path)
    module = part.build()
    names = sorted(module.state_dict())
    assert apply(module) == SD15_SITES["gelu"] == 16
    assert sorted(module.state_dict()) == names
    calls = [node.target for node in trace(part, WITH, open_batch=False).program.graph.nodes]
    assert calls.count(MARKS["gelu"]) == 16 and torch.ops.aten.gelu.default not in calls
    assert apply(nn.Sequential(nn.GELU(), GELUActivation(), activations.GELU(4, 4))) == 3


def test_does_not_fire_on_other_gelus() -> None:
    class Other(nn.GELU):
        pass

    others = nn.Sequential(
        nn.GELU("tanh"), GELUTanh(), QuickGELUActivation(), Other(), nn.SiLU(), activations.GELU(4, 4, "tanh")
    )
    assert apply(others) == 0
    assert kept(others) == {"is the tanh approximation already": 2}


def test_parity_with_what_it_says_it_is(tmp_path: Path) -> None:
    """Equal to the original with GELU by tanh, and within the declared floor of the original itself."""
    part = narrow_sd15_unet(tmp_path)
    module, example = load_module(part), tuple(part.example(0).values())
    with torch.no_grad():
        original = module(*example)[0].numpy()
        for child in module.modules():
            if isinstance(child, activations.GEGLU):
                child.gelu = lambda gate: F.gelu(gate, approximate="tanh")
        wanted = module(*example)[0].numpy()
        module = load_module(part)
        apply(module)
        found = module(*example)[0].numpy()
    assert psnr(wanted, found) > 130
    assert changed_floor_db(WITH) < psnr(original, found) < 105


@pytest.mark.parametrize("profile", ["ort", "std"])
def test_onnx_says_which_gelu(tmp_path: Path, profile: str) -> None:
    part = micro_unet(tmp_path, transformer_layers_per_block=6)
    graph, found, reference = emit_and_run(part, onnx_artifact(profile, rewrites=WITH), tmp_path)
    assert graph.ops["Gelu"] == part.sites["gelu"] == 6
    module = load_module(part)
    apply_rewrites(module, WITH)
    with torch.no_grad():
        changed = module(*part.example(0).values())[0].numpy()
    assert psnr(changed, found["out_sample"]) > 105 > psnr(reference["out_sample"], found["out_sample"])


def test_the_operator_alone() -> None:
    x = torch.linspace(-12, 12, 1001)
    assert 4e-4 < (tanh_gelu(x) - F.gelu(x)).abs().max() < 5e-4
    torch.library.opcheck(tanh_gelu, (x,), test_utils=("test_schema", "test_faketensor"))


def test_it_is_the_only_one_that_changes_the_model_and_no_target_asks_for_it() -> None:
    asked = {
        name for target in target_names() for artifact in load_target(target).artifacts for name in artifact.rewrites
    }
    assert not changes(asked) and set(changes([*asked, "tanh_gelu", "tanh_sigmoid"])) == {"tanh_gelu"}
