"""JSON files of a bundle: each record is always written in the same bytes, and refused in the same words."""

import json
from collections import Counter
from typing import Any, TypeVar

from pydantic import ValidationError

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.record import READING, Record

R = TypeVar("R", bound=Record)
# Fields of closed lists: with a value that is not in its list this reader cannot run the bundle.
LISTS = {
    "kind": "tokenizer kind",
    "dtype": "dtype",
    "guidance": "guidance kind",
    "absent_negative": "kind of absent negative prompt",
}


def encode(record: Record) -> bytes:
    """Return a record as UTF-8 JSON: keys sorted, no spaces, one newline at the end."""
    fields = record.model_dump(mode="json")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raise ValueError if it is not an object, or a key occurs twice."""
    fields = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def decode(raw: bytes, kind: type[R]) -> R:
    """Return the record in `raw`. Fields that `kind` does not have are ignored, and unknown values of fields that are
    information only (`record.INFORMS`) are kept, because a later minor version may have more.

    Raise ValueError if it is not such a record, and UserError, which names the value, if it is not in a closed list."""
    parse(raw)
    try:
        return kind.model_validate_json(raw, strict=True, extra="ignore", context=READING)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            if each["type"] == "literal_error" and each["loc"] and (what := LISTS.get(str(each["loc"][-1]))):
                place = ".".join(map(str, each["loc"]))
                raise UserError(
                    f"{place}: the {what} {each['input']!r} is not known to this pocketdiffusion: install a newer one"
                ) from None
        raise


def one_line(error: Exception) -> str:
    """Return the first error with its place, and the number of further ones."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first, *rest = error.errors(include_url=False)
    where = ".".join(map(str, first["loc"]))
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise ValueError(f"the key {min(twice)!r} is there twice")
    return fields


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
