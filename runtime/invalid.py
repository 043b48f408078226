"""One line about a file that does not validate: the field, its value, the valid values, and the nearest of them."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

LONGEST = 40  # characters of a value that are shown
_WORDS = {
    "Input should be": "it should be",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid list": "a list",
    "a valid dictionary": "an object",
    "greater than or equal to 0": "0 or more",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def describe_invalid(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Describe the first error in one line, as "a.b is 3: it should be ...". For an unknown field the nearest name of
    `model` is suggested; without `model` none is."""
    first = error.errors(include_url=False)[0]
    where, kind, value = ".".join(map(str, first["loc"])), first["type"], first["input"]
    shown = " ".join(repr(value).split())[:LONGEST]
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        known = sorted(model.model_fields) if model is not None else []
        return f"{where} is not known{_suggest(str(first['loc'][-1]), known)}"
    if kind == "json_invalid":
        return f"it is not valid JSON: {first['ctx']['error']}"
    if kind == "value_error":
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    choices = _choices(first) if kind == "literal_error" else []
    return f"{where or 'it'} is {shown}: {_reword(str(first['msg']))}{_suggest(str(value), choices)}"


def _reword(message: str) -> str:
    """Return pydantic's message in plain words."""
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _choices(first: Any) -> list[str]:
    """Return the values of a literal, parsed from pydantic's "'a', 'b' or 'c'"."""
    return [word.strip("' ") for word in str(first["ctx"]["expected"]).replace(" or ", ",").split(",")]


def _suggest(word: str, known: list[str]) -> str:
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
