import torch
from support.traced_parts import text_model
from torch import nn
from transformers.activations import GELUActivation, QuickGELUActivation

from pocketdiffusion.export.rewrites.quick_gelu import apply, kept, quick_gelu


def test_fires_once_per_layer() -> None:
    assert apply(text_model("quick_gelu")) == 3


def test_does_not_fire_on_gelu() -> None:
    assert apply(text_model("gelu")) == 0
    assert kept(text_model("gelu")) == {"is GELU, another function": 3} and kept(text_model("quick_gelu")) == {}
    assert apply(nn.Sequential(nn.GELU(), nn.GELU("tanh"), nn.SiLU(), GELUActivation())) == 0


def test_parity() -> None:
    model = text_model("quick_gelu")
    ids = torch.randint(0, 99, (1, 12))
    with torch.no_grad():
        before = model(ids).last_hidden_state
        apply(model)
        after = model(ids).last_hidden_state
    assert torch.equal(before, after)


def test_the_operator_alone() -> None:
    x = torch.linspace(-12, 12, 1001)
    assert torch.equal(quick_gelu(x), QuickGELUActivation()(x))
    torch.library.opcheck(quick_gelu, (x,), test_utils=("test_schema", "test_faketensor"))
