"""Families are traced with fake tensors only, and have no other operator counts than the configuration's."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.family_cases import CASES, Model, parts_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pocketdiffusion.export.component import Component


@pytest.mark.parametrize(
    "name", ["four blocks, two layers, as SD1.5", "size that halves to odd numbers", "wide latents"]
)
def test_components_trace_without_weights(name: str, make: Callable[..., Model]) -> None:
    model, case = make(CASES[name]), CASES[name]
    sizes = {} if case.size is None else {"width": case.size[0], "height": case.size[1]}
    for part in parts_of(model.folder, **sizes).values():
        check_trace(part, open_batch=False)


def test_unet_traces_with_an_open_batch(tiny_checkpoint: Path) -> None:
    unet = parts_of(tiny_checkpoint)["unet"]
    assert str(check_trace(unet, open_batch=True)[0]).startswith("s")
    assert check_trace(unet, open_batch=False) == (1, 4, 16, 16)


def check_trace(part: Component, open_batch: bool) -> tuple[Any, ...]:
    """The shape of the first output of the component's program, whose operators and parameters are checked."""
    with FakeTensorMode(shape_env=ShapeEnv()):
        module = part.build().eval().requires_grad_(False)
        sizes = [[int(n) for n in t.shape] for t in part.spec.inputs]
        if open_batch:
            sizes = [[2, *size[1:]] if len(size) > 1 else size for size in sizes]
        dtypes = [getattr(torch, t.dtype) for t in part.spec.inputs]
        inputs = tuple(torch.empty(size, dtype=dtype) for size, dtype in zip(sizes, dtypes, strict=True))
    batch = Dim("batch", min=1, max=32)
    shapes = tuple({0: batch} if open_batch and x.ndim > 1 else {} for x in inputs)
    program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    calls = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    operators = {
        "attention": "aten.scaled_dot_product_attention.default",
        "group_norm": "aten.group_norm.default",
        "layer_norm": "aten.layer_norm.default",
        "gelu": "aten.gelu.default",
        "silu": "aten.silu.default",
        "quick_gelu": "aten.sigmoid.default",
        "sinusoidal_embedding": "aten.sin.default",
    }
    assert {kind: calls[op] for kind, op in operators.items() if calls[op]} == dict(part.sites)
    assert {spec.target for spec in program.graph_signature.input_specs if spec.target} == set(part.weights)
    assert not program.constants
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    return tuple(output.args[0][0].meta["val"].shape)
