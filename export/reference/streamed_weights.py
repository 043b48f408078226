"""Modules whose weights stay in their files: the float32 copy of a layer's weights exists only during its forward.

A module that a loader opened in float16 keeps the mapped pages of the file, which the system can drop and read again.
Each weight is replaced by a NaN of four bytes, so that code that bypasses the hooks computes NaN instead of a wrong
picture. float16 and bfloat16 become float32 exactly.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

Table = dict[str, Tensor | None]


def stream_weights(module: nn.Module) -> None:
    """Let every submodule of `module` that has its own parameters or buffers compute in float32, from weights as they
    are stored. The dtype of all floating-point tensors reads as float32."""
    for each in module.modules():
        if any(True for _ in _own(each)):
            _stream(each)


def _own(module: nn.Module) -> Iterator[tuple[Table, str, Tensor]]:
    for table in (module._parameters, module._buffers):
        for name, tensor in table.items():
            if tensor is not None:
                yield table, name, tensor  # type: ignore[misc]


def _stream(module: nn.Module) -> None:
    stored = {name: tensor for _, name, tensor in _own(module)}
    resting = {name: _like(_nothing(tensor), tensor) for name, tensor in stored.items()}

    def put(values: Mapping[str, Tensor]) -> None:
        for table, name, _ in list(_own(module)):
            table[name] = values[name]

    def fill(*_: object) -> None:
        put({name: _like(_widened(tensor), tensor) for name, tensor in stored.items()})

    def rest(*_: object) -> None:
        put(resting)

    put(resting)
    module.register_forward_pre_hook(fill)
    module.register_forward_hook(rest, always_call=True)


def _nothing(tensor: Tensor) -> Tensor:
    return torch.full((), float("nan")).expand(tensor.shape) if tensor.is_floating_point() else tensor


def _widened(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor


def _like(tensor: Tensor, old: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
