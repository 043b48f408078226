"""The licence of a checkpoint, from its model card or a licence file next to it."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard


def read_licence(folder: Path) -> str:
    """Return the licence that the metadata of the folder's README.md names, else the name of a licence file, else
    "unknown". A card whose metadata cannot be read names none."""
    data = _metadata(folder / "README.md")
    for key in ("license_name", "license"):  # the first names what the second calls "other"
        value = data.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str | int | float) and str(first).strip():
            return " ".join(str(first).split())
    files = sorted(p.name for p in folder.iterdir() if p.name.upper().startswith("LICENSE"))
    return f"see {files[0]}" if files else "unknown"


def _metadata(card: Path) -> dict[str, Any]:
    text = card.read_text(encoding="utf-8-sig", errors="replace") if card.is_file() else ""
    if not text.lstrip().startswith("---"):
        return {}
    try:
        return dict(vars(ModelCard(text, ignore_metadata_errors=True).data))
    except Exception:  # a person wrote it: YAML, types and keys can be wrong in any way, each with its own exception
        return {}
