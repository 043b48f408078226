"""The JSON Schemas of a bundle's JSON files, for readers in other languages.

python -m pocketdiffusion.runtime.bundle.schemas      writes them next to this file"""

import json
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.bundle.layout import Index, Pipeline, Proof
from pocketdiffusion.runtime.record import Record

SCHEMAS: dict[str, type[Record]] = {"manifest": Index, "pipeline": Pipeline, "proof": Proof}


def schema_path(name: str) -> Path:
    """Return the file of the schema `name`."""
    return Path(__file__).with_name(f"{name}.schema.json")


def make_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a file as it is written, with every field. It allows unknown
    fields, and unknown values of lists that are information only, because a reader must ignore both in a later
    minor version."""
    schema = SCHEMAS[name].model_json_schema(mode="serialization")
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("additionalProperties", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schemas() -> None:
    """Write all schemas next to this file."""
    for name in SCHEMAS:
        schema_path(name).write_text(json.dumps(make_schema(name), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
