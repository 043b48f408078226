"""Changes in a sealed bundle by a careful forger, or by a buggy exporter: every digest fits again afterwards, so that
nothing but what the files say can tell."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], object]


def forge(folder: Path, path: str, change: Change) -> None:
    """Change the JSON file `path` of a bundle, manifest.json included, and make all digests fit."""
    fields = json.loads((folder / path).read_bytes())
    change(fields)
    (folder / path).write_bytes(json.dumps(fields).encode())
    reseal(folder)


def reseal(folder: Path, change: Change = lambda fields: None) -> None:
    """Make table, ids and digest fit the files that are there; then `change` what the manifest says."""
    fields = json.loads((folder / "manifest.json").read_bytes())
    for path, entry in fields["files"].items():
        if (folder / path).is_file():
            raw = (folder / path).read_bytes()
            entry |= {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    fields["proof"]["sha256"] = fields["files"]["proof.json"]["sha256"]
    fit_ids(fields)
    change(fields)
    write_manifest(folder, json.dumps(fields).encode())


def fit_ids(fields: dict[str, Any]) -> None:
    """Make runtime_id and bundle_id of the table."""
    roles = {entry.get("role") for entry in fields["files"].values()}
    for name, counted in (("runtime_id", {"runtime"}), ("bundle_id", roles - {"report"})):
        lines = (f"{e['sha256']}  {path}\n" for path, e in sorted(fields["files"].items()) if e.get("role") in counted)
        fields[name] = hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, raw: bytes) -> None:
    """Write manifest.json, whatever it is, with a digest that fits."""
    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")
