"""The types of a configuration's values, by the annotations of the class that reads them.

diffusers checks no type: a number that is written as text fails wherever it is first computed with, and a text for a
bool is taken for true.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import signature
from math import isfinite, isnan
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pocketdiffusion.runtime.errors import UserError

# Whole numbers that count something are over 0, but for these.
_MAY_BE_ZERO = ("downsample_padding", "steps_offset")
_ANY_INTEGER = ("freq_shift", "bos_token_id", "eos_token_id", "pad_token_id")
_NOT_ZERO = ("scaling_factor", "mid_block_scale_factor", "resnet_out_scale_factor")
# Whatever the class announces: the first fails where it is computed with, the second where the ends are looked for.
_NEVER_NULL = ("layer_norm_eps", "eos_token_id")
_NEVER_LISTS = ("eos_token_id",)
_ALSO_LISTS = ("sample_size",)  # diffusers reads a list where AutoencoderKL announces a number
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    NoneType: "null",
}


def check_config(file: Path, model: type, config: Mapping[str, Any]) -> None:
    """Raises UserError, naming `file` and field, where a value of `config` is of a kind that `model`, a class of
    diffusers or a configuration of transformers, does not take, or is no size."""
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{file}: quantization_config asks for weights that were quantized by a library: save it without"
        )
    if is_dataclass(model) and config.get("transformers_weights") is not None:
        raise UserError(
            f"{file}: transformers_weights names another file of weights: remove it, and name that file as usual"
        )
    for field, (hint, default) in _fields(model).items():
        if field in config and (type(config[field]), config[field]) != (type(default), default):
            kinds, elements = set(_kinds(hint)), set(_elements(hint))
            if kinds and kinds | elements <= _WORDS.keys():
                _check(f"{file}: {field}", field, config[field], kinds, elements, default)


def _fields(model: type) -> dict[str, tuple[Any, Any]]:
    """The annotation and the default of each argument."""
    if is_dataclass(model):  # a configuration of transformers; what it inherits is none of its model's
        return {one.name: (one.type, one.default) for one in fields(model) if one.name in model.__annotations__}
    hints = get_type_hints(model.__init__)  # type: ignore[misc]
    return {n: (hints[n], p.default) for n, p in signature(model).parameters.items() if n in hints}


def _kinds(hint: Any) -> Iterator[type]:
    """JSON's kinds of value that a type takes."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for one in get_args(hint):
            yield from _kinds(one)
    elif origin is Literal:
        yield from {type(value) for value in get_args(hint)}
    elif isinstance(origin or hint, type):
        yield list if (origin or hint) in (list, tuple) else hint


def _elements(hint: Any) -> Iterator[type]:
    """JSON's kinds of value that the lists of a type may hold, at any depth."""
    origin = get_origin(hint)
    for one in get_args(hint) if origin in (Union, UnionType, list, tuple) else ():
        yield from _elements(one)
        if origin in (list, tuple) and one is not Ellipsis:
            yield from _kinds(one)


def _check(where: str, field: str, value: Any, kinds: set[type], elements: set[type], default: Any) -> None:
    """Raises UserError, in words about `where`."""
    if isinstance(value, list) and (list in kinds or field in _ALSO_LISTS) and field not in _NEVER_LISTS:
        if not value:
            raise UserError(f"{where} is an empty list: correct it")
        for one in value:
            _check(where, field, one, elements or kinds, elements, default)
        return
    kinds = kinds - ({NoneType} if field in _NEVER_NULL else set()) - ({list} if field in _NEVER_LISTS else set())
    if not any(_fits(value, kind, lenient=list not in kinds) for kind in kinds):
        wanted = [words for kind, words in _WORDS.items() if kind in kinds and not (kind is int and float in kinds)]
        raise UserError(f"{where} is {value!r} and should be {' or '.join(wanted)}: correct it")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    infinite = isinstance(default, float) and not isfinite(default)
    if isnan(value) or (not isfinite(value) and not infinite):
        raise UserError(f"{where} is {value!r} and should be a finite number: correct it")
    if field in _NOT_ZERO and value == 0:
        raise UserError(f"{where} is 0, by which diffusers divides: correct it")
    if int in kinds and float not in kinds and isinstance(value, int) and field not in _ANY_INTEGER:
        least = 0 if field in _MAY_BE_ZERO else 1
        if value < least:
            raise UserError(f"{where} is {value} and should be {least} or more: correct it")


def _fits(value: Any, kind: type, lenient: bool) -> bool:
    """Whether diffusers reads a JSON value as this kind: null is false, 1 is true (if `lenient`), 3 is 3.0."""
    if kind is bool:
        return isinstance(value, bool) or (lenient and (value is None or isinstance(value, int | float)))
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
