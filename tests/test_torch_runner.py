"""A torch module whose weights are streamed computes what one with its weights in memory computes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference import torch_runner
from pocketdiffusion.export.reference.torch_runner import TorchRunner, open_rewritten, open_rounded
from pocketdiffusion.export.targets import load_target, target_names
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.runner import Array

REWRITES = sorted({artifact.rewrites for name in target_names() for artifact in load_target(name).artifacts})
SCHEMES = (Scheme("linear", 8), Scheme("palette", 4), Scheme("float", 16), Scheme("linear", 8, activation="dynamic"))


@pytest.fixture(scope="module")
def parts(micro_checkpoint: Path) -> list[Component]:
    return components(open_checkpoint(str(micro_checkpoint), progress=lambda line: None))


def outputs(part: Component, opened: Callable[[], TorchRunner]) -> tuple[TorchRunner, dict[str, Array]]:
    runner = opened()
    return runner, runner({name: tensor.numpy() for name, tensor in part.example(3).items()})


def check_equal(part: Component, opened: Callable[[], TorchRunner], monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in memory, then in their files: equal outputs, and a module of NaN between two calls."""
    held, expected = outputs(part, opened)
    assert not any(tensor.isnan().all() for tensor in held.module.parameters())
    with monkeypatch.context() as patch:
        patch.setattr(torch_runner, "HELD_BYTES", 0)
        streamed, found = outputs(part, opened)
    assert all(np.array_equal(found[name], x) for name, x in expected.items()) and found.keys() == expected.keys()
    assert all(
        tensor.isnan().all() and tensor.untyped_storage().nbytes() == 4 for tensor in streamed.module.parameters()
    )
    assert streamed.module.state_dict().keys() == held.module.state_dict().keys()


@pytest.mark.parametrize("rewrites", [(), *REWRITES], ids=lambda rewrites: "+".join(rewrites) or "none")
def test_rewritten_and_rounded(
    parts: Sequence[Component], rewrites: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in parts:
        check_equal(part, partial(open_rewritten, part, rewrites), monkeypatch)
        check_equal(part, partial(open_rounded, part, rewrites), monkeypatch)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_quantized(parts: Sequence[Component], scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in parts if scheme.activation == "float" else [part for part in parts if part.spec.name == "unet"]:
        plan = Plan("test", dict.fromkeys(weights_of(part), scheme))
        check_equal(part, partial(open_quantized, part, (), plan), monkeypatch)


def test_rounding_changes_matrices_alone(parts: Sequence[Component]) -> None:
    (unet,) = (part for part in parts if part.spec.name == "unet")
    exact, rounded = (dict(opened(unet, ()).module.named_parameters()) for opened in (open_rewritten, open_rounded))
    for name, tensor in exact.items():
        wanted = tensor.half().float() if tensor.ndim > 1 else tensor
        assert wanted.equal(rounded[name])
