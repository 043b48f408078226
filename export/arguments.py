"""A component's config.json as the arguments of the class that it configures."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from torch import device, nn

from pocketdiffusion.runtime.errors import UserError


def defaults(model: Callable[..., object]) -> dict[str, Any]:
    """Return the arguments of a class that have defaults, with these defaults."""
    return {n: p.default for n, p in signature(model).parameters.items() if p.default is not Parameter.empty}


def read_arguments(
    part: str, model: Callable[..., nn.Module], config: Mapping[str, Any], served: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """Return the arguments of `model`: the configuration's values, else its defaults. Keys that `model` does not have
    are ignored.

    Raise UserError if a value, or a value in a list, is not among those that `served` allows for its key.
    """
    known = defaults(model)
    arguments = known | {key: value for key, value in config.items() if key in known}
    for key, allowed in served.items():
        value = arguments[key]
        for one in value if isinstance(value, list | tuple) else [value]:
            if one not in allowed:
                alternatives = " or ".join(str(v) for v in allowed)
                raise UserError(f"{part}: {key} {one!r} in config.json is not supported; {alternatives} is")
    return arguments


def tensor_shapes(part: str, build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's tensors by name, without allocating them. Raise UserError if no module
    can be built from the configuration."""
    try:
        with device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except Exception as error:  # a wrong configuration can raise any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{part}: no module can be built from config.json ({type(error).__name__}: {reason}): correct it"
        ) from None
