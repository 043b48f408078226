"""Check the types of a configuration's values against the annotations of the class that reads them.

diffusers checks no type: a number that is written as text fails wherever it is first used in arithmetic, and any text
counts as true where a bool is expected.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import signature
from math import isfinite, isnan
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pocketdiffusion.runtime.errors import UserError

# Integers that count something are positive, except these.
_MAY_BE_ZERO = ("downsample_padding", "steps_offset")
_ANY_INTEGER = ("freq_shift", "bos_token_id", "eos_token_id", "pad_token_id")
_NOT_ZERO = ("scaling_factor", "mid_block_scale_factor", "resnet_out_scale_factor")
# Whatever the annotation says: the first fails in arithmetic, the second where the end tokens are searched.
_NEVER_NULL = ("layer_norm_eps", "eos_token_id")
_NEVER_LISTS = ("eos_token_id",)
_ALSO_LISTS = ("sample_size",)  # diffusers reads a list where AutoencoderKL's annotation says a number
_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    list: "a list",
    NoneType: "null",
}


def check_config(file: Path, model: type, config: Mapping[str, Any]) -> None:
    """Check the values of `config` against `model`, a class of diffusers or a configuration class of transformers.
    Raise UserError, naming `file` and field, if a value is of a type that the class does not accept, or is an
    impossible size."""
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{file}: quantization_config says that a library has quantized the weights, which is not supported: save "
            "the model without it"
        )
    if is_dataclass(model) and config.get("transformers_weights") is not None:
        raise UserError(
            f"{file}: transformers_weights names another weight file: remove it, and give that file the usual name"
        )
    for field, (hint, default) in _fields(model).items():
        if field in config and (type(config[field]), config[field]) != (type(default), default):
            kinds, elements = set(_kinds(hint)), set(_elements(hint))
            if kinds and kinds | elements <= _WORDS.keys():
                _check(f"{file}: {field}", field, config[field], kinds, elements, default)


def _fields(model: type) -> dict[str, tuple[Any, Any]]:
    """Return {name: (annotation, default)} of the arguments of `model`."""
    if is_dataclass(model):  # a configuration of transformers; inherited fields do not belong to its model
        return {one.name: (one.type, one.default) for one in fields(model) if one.name in model.__annotations__}
    hints = get_type_hints(model.__init__)  # type: ignore[misc]
    return {n: (hints[n], p.default) for n, p in signature(model).parameters.items() if n in hints}


def _kinds(hint: Any) -> Iterator[type]:
    """Yield the Python types of the JSON values that the annotation `hint` accepts."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for one in get_args(hint):
            yield from _kinds(one)
    elif origin is Literal:
        yield from {type(value) for value in get_args(hint)}
    elif isinstance(origin or hint, type):
        yield list if (origin or hint) in (list, tuple) else hint


def _elements(hint: Any) -> Iterator[type]:
    """Yield the Python types of the JSON values that the lists of the annotation `hint` may contain, at any depth."""
    origin = get_origin(hint)
    for one in get_args(hint) if origin in (Union, UnionType, list, tuple) else ():
        yield from _elements(one)
        if origin in (list, tuple) and one is not Ellipsis:
            yield from _kinds(one)


def _check(where: str, field: str, value: Any, kinds: set[type], elements: set[type], default: Any) -> None:
    """Check one value. Raise UserError that begins with `where` if diffusers cannot use it."""
    if isinstance(value, list) and (list in kinds or field in _ALSO_LISTS) and field not in _NEVER_LISTS:
        if not value:
            raise UserError(f"{where} is an empty list: correct it")
        for one in value:
            _check(where, field, one, elements or kinds, elements, default)
        return
    kinds = kinds - ({NoneType} if field in _NEVER_NULL else set()) - ({list} if field in _NEVER_LISTS else set())
    if not any(_fits(value, kind, lenient=list not in kinds) for kind in kinds):
        expected = [words for kind, words in _WORDS.items() if kind in kinds and not (kind is int and float in kinds)]
        raise UserError(f"{where} is {value!r} and should be {' or '.join(expected)}: correct it")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    infinite = isinstance(default, float) and not isfinite(default)
    if isnan(value) or (not isfinite(value) and not infinite):
        raise UserError(f"{where} is {value!r} and should be a finite number: correct it")
    if field in _NOT_ZERO and value == 0:
        raise UserError(f"{where} is 0, and diffusers divides by it: correct it")
    if int in kinds and float not in kinds and isinstance(value, int) and field not in _ANY_INTEGER:
        least = 0 if field in _MAY_BE_ZERO else 1
        if value < least:
            raise UserError(f"{where} is {value} and should be {least} or more: correct it")


def _fits(value: Any, kind: type, lenient: bool) -> bool:
    """Return True if diffusers reads a JSON value as this type: null as false, 1 as true (if `lenient`), 3 as 3.0."""
    if kind is bool:
        return isinstance(value, bool) or (lenient and (value is None or isinstance(value, int | float)))
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
