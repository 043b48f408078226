from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.traced_parts import SD15_SITES, narrow_sd15_unet, psnr
from torch import nn

from pocketdiffusion.export.rewrites.centred_group_norm import apply, by_channel, centred_group_norm, kept


def test_fires_on_every_group_norm(tmp_path: Path) -> None:
    model = narrow_sd15_unet(tmp_path).build()
    names = sorted(model.state_dict())
    assert apply(model) == SD15_SITES["group_norm"] == 61
    assert sorted(model.state_dict()) == names
    assert apply(model) == 0


def test_does_not_fire_on_other_norms() -> None:
    class Other(nn.GroupNorm):
        pass

    others = nn.ModuleList([nn.GroupNorm(2, 4, affine=False), Other(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4)])
    assert apply(others) == 0
    assert kept(others) == {"has no weight and bias": 1, "is a subclass": 1} and kept(nn.GroupNorm(2, 4)) == {}


@pytest.mark.parametrize("shape", [(1, 12, 5, 7), (2, 12, 35)])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_the_operator_alone(shape: tuple[int, ...], groups: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = 3 + torch.randn(shape), torch.randn(12), torch.randn(12)
    wanted = F.group_norm(x, groups, weight, bias, 1e-5)
    assert psnr(wanted.numpy(), centred_group_norm(x, groups, weight, bias, 1e-5).numpy()) > 125
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(centred_group_norm, (x, groups, weight, bias, 1e-5), test_utils=checks)


def test_it_holds_in_half_where_the_mean_is_large() -> None:
    """Of channels around 60, what is not centred first has lost its variance in float16: 3600 has a step of 2."""
    torch.manual_seed(0)
    x, weight, bias = 60 + torch.randn(1, 8, 16, 16), torch.ones(8), torch.zeros(8)
    wanted = F.group_norm(x, 2, weight, bias, 1e-5).numpy()
    half = by_channel(x.half(), 2, weight.half(), bias.half(), 1e-5).float().numpy()
    assert psnr(wanted, half) > 45
    grouped = x.half().reshape(1, 2, -1)
    variance = (grouped * grouped).mean(2) - grouped.mean(2) ** 2
    assert (variance.float() - 1).abs().max() > 0.5
