"""A component's config.json as the arguments of the class that it configures."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from torch import device, nn

from pocketdiffusion.runtime.errors import UserError


def defaults(model: Callable[..., object]) -> dict[str, Any]:
    """The arguments of a class that may be left out, and what they are then."""
    return {n: p.default for n, p in signature(model).parameters.items() if p.default is not Parameter.empty}


def read_arguments(
    part: str, model: Callable[..., nn.Module], config: Mapping[str, Any], served: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """The arguments of `model`, with its defaults where the configuration is silent; keys it does not know are left.

    Raises UserError where a value, or a value in a list, is not among those that `served` allows for its key.
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
    """The shapes of a module's tensors, without their storage. Raises UserError where the configuration makes none."""
    try:
        with device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except Exception as error:  # a wrong configuration fails in whatever way the line that meets it fails
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{part}: its config.json makes no model ({type(error).__name__}: {reason})") from None
