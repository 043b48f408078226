from pathlib import Path

import torch
import torch.nn.functional as F
from support.traced_parts import SD15_SITES, narrow_sd15_unet, psnr
from torch import nn

from pocketdiffusion.export.rewrites.centred_layer_norm import apply, by_row, centred_layer_norm, kept


def test_fires_on_every_layer_norm(tmp_path: Path) -> None:
    model = narrow_sd15_unet(tmp_path).build()
    names = sorted(model.state_dict())
    assert apply(model) == SD15_SITES["layer_norm"] == 48
    assert sorted(model.state_dict()) == names
    assert apply(model) == 0


def test_does_not_fire_on_other_norms() -> None:
    class Other(nn.LayerNorm):
        pass

    plain, no_bias = nn.LayerNorm(4, elementwise_affine=False), nn.LayerNorm(4, bias=False)
    others = nn.ModuleList([nn.LayerNorm((3, 4)), plain, no_bias, Other(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)])
    assert apply(others) == 0
    assert kept(others) == {"is a subclass": 1, "is over several axes": 1, "has no weight and bias": 2}
    assert kept(nn.LayerNorm(4)) == {}


def test_the_operator_alone() -> None:
    torch.manual_seed(0)
    x, weight, bias = 3 + torch.randn(1, 5, 16), torch.randn(16), torch.randn(16)
    wanted = F.layer_norm(x, (16,), weight, bias, 1e-5)
    assert psnr(wanted.numpy(), centred_layer_norm(x, weight, bias, 1e-5).numpy()) > 125
    torch.library.opcheck(centred_layer_norm, (x, weight, bias, 1e-5), test_utils=("test_schema", "test_faketensor"))


def test_it_holds_in_half_where_the_mean_is_large() -> None:
    torch.manual_seed(0)
    x, weight, bias = 60 + torch.randn(1, 4, 64), torch.ones(64), torch.zeros(64)
    wanted = F.layer_norm(x, (64,), weight, bias, 1e-5).numpy()
    assert psnr(wanted, by_row(x.half(), weight.half(), bias.half(), 1e-5).float().numpy()) > 45
