"""Modules whose weights stay in their files: the float32 copy of a layer's weights exists only during its forward.

A module that a loader opened in float16 keeps the mapped pages of the file, which the system can drop and read again.
Each weight is replaced by a NaN of four bytes, so that code that bypasses the hooks computes NaN instead of a wrong
picture. float16 and bfloat16 become float32 exactly.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

Table = dict[str, Tensor | None]
Read = Callable[[str], Tensor]  # a weight in float32, by its name in the module's state_dict


def stream_weights(module: nn.Module, read: Read | None = None) -> None:
    """Let every submodule of `module` that has its own parameters or buffers compute in float32, with weights that
    `read` returns at each forward; by default the module's own, as they are stored. The dtype of all floating-point
    tensors reads as float32."""
    for prefix, each in module.named_modules():
        own = {name: tensor for _, name, tensor in _own(each)}
        if own and read is None:
            _stream(each, own, partial(_widen, own))
        elif own and read is not None:
            _stream(each, own, partial(_read, read, f"{prefix}." if prefix else ""))


def _own(module: nn.Module) -> Iterator[tuple[Table, str, Tensor]]:
    for table in (module._parameters, module._buffers):
        for name, tensor in table.items():
            if tensor is not None:
                yield table, name, tensor  # type: ignore[misc]


def _stream(module: nn.Module, own: Mapping[str, Tensor], read: Read) -> None:
    resting = {name: _like(_nothing(tensor), tensor) for name, tensor in own.items()}

    def put(values: Mapping[str, Tensor]) -> None:
        for table, name, _ in list(_own(module)):
            table[name] = values[name]

    def fill(*_: object) -> None:
        put({name: _like(read(name), tensor) for name, tensor in resting.items()})

    def rest(*_: object) -> None:
        put(resting)

    put(resting)
    module.register_forward_pre_hook(fill)
    module.register_forward_hook(rest, always_call=True)


def _nothing(tensor: Tensor) -> Tensor:
    return torch.full((), float("nan")).expand(tensor.shape) if tensor.is_floating_point() else tensor


def _read(read: Read, prefix: str, name: str) -> Tensor:
    return read(prefix + name)


def _widen(own: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = own[name]
    return tensor.detach().float() if tensor.is_floating_point() else tensor


def _like(tensor: Tensor, old: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
