"""Shared parts of the reports: templates, numbers as text, pictures embedded in the page."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.controls import compare_with
from pocketdiffusion.runtime.verify.pictures import PictureReport

TEMPLATES = Path(__file__).with_name("templates")
AMPLIFIED = 8  # factor of the pictures of differences


class Original(Protocol):
    """One drawing of the reference. `picture`: uint8 [H, W, 3]. `controls`: PSNR (dB) of its control pictures."""

    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def picture(self) -> Array: ...
    @property
    def controls(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Drawing:
    """One picture and its difference from the reference's, as data URLs. `against_controls`: a clause that compares its
    PSNR with the controls."""

    report: PictureReport
    against_controls: str
    picture: str
    difference: str


@dataclass(frozen=True)
class Prompt:
    """One prompt: the reference's picture as a data URL, and one drawing for each format."""

    text: str
    seed: int
    original: str
    drawings: tuple[Drawing, ...]


def render(template: str, **values: Any) -> str:
    """Return the page of a file of templates/, filled with `values`. Raise UndefinedError if a value is missing."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(db=db, mb=mb, breakable=breakable, capitalize_first=capitalize_first)
    return environment.get_template(template).render(values)


def db(value: float) -> str:
    """Return `value` in dB as text, without the unit."""
    return "equal" if value == inf else f"{value:.1f}" if value > -inf else "not finite"


def mb(value: float | None) -> str:
    """Return `value` in MB of 1e6 bytes as text, without the unit; "-" for None."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def breakable(name: str) -> Markup:
    """Return a name as HTML that may be wrapped after a dot, an underscore or a slash."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/])(?=.)", name))


def capitalize_first(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def group_pictures(pictures: Sequence[PictureReport], originals: Sequence[Original]) -> list[Prompt]:
    """Return each prompt with its drawings. `pictures`: all of the first format in the order of `originals`, then all
    of the next format."""
    found = []
    for number, original in enumerate(originals):
        drawings = tuple(_drawing(each, original) for each in pictures[number :: len(originals)])
        if drawings:
            found.append(Prompt(original.prompt, original.seed, data_url(original.picture), drawings))
    return found


def _drawing(report: PictureReport, original: Original) -> Drawing:
    return Drawing(
        report,
        compare_with(report.psnr_db, original.controls),
        data_url(report.picture),
        data_url(_difference(original.picture, report.picture)),
    )


def _difference(a: Array, b: Array) -> Array:
    """Return the absolute difference times AMPLIFIED, uint8 [H, W, 3]."""
    levels: Array = np.clip(np.abs(a.astype(int) - b.astype(int)) * AMPLIFIED, 0, 255).astype(np.uint8)
    return levels


def data_url(picture: Array) -> str:
    """Return a picture uint8 [H, W, 3] as a data URL of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def words(value: Any) -> Any:
    """Return `value` with nan and infinities as text, at every depth, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: words(each) for key, each in value.items()}
    return [words(each) for each in value] if isinstance(value, list | tuple) else word(value)


def word(value: Any) -> Any:
    """Return nan and infinities as text, and any other value unchanged."""
    return str(value) if isinstance(value, float) and not abs(value) < inf else value
