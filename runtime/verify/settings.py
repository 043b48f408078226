"""Checks of settings that no drawing of a bundle's proof uses, against the settings that this version of the product
knows."""

import struct
from collections.abc import Iterator

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.file_table import MANIFEST
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.json_files import parse
from pocketdiffusion.runtime.bundle.leftovers import FILES, FOLDERS
from pocketdiffusion.runtime.bundle.manifest import MINOR
from pocketdiffusion.runtime.engines import find_engine
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.pipeline import find_table, start_step

GUIDANCE = 50.0  # largest default: a bound against nonsense, chosen and not measured
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">8s4x4sIIBB")  # of a PNG: signature, first chunk's name, width, height, bits, kind of colour
RGB = (8, 2)  # bits and kind of colour: 8 bits for each of red, green and blue


def engine_faults(format: str, graph: Graph) -> Iterator[str]:
    """Yield faults in a graph's record of its engine, and in the fields that are reserved in this version."""
    engine, expected = graph.engine, find_engine(format)
    if expected is not None and (engine is None or engine.name != expected.name):
        yield f"engine is {'null' if engine is None else engine.name}, and {format} is read by {expected.name}"
    if engine is not None and expected is not None and expected.same_versions:
        least, tried = _parts(engine.least_version), _parts(engine.tried)
        if least and tried and least > tried:
            yield f"engine.least_version is {engine.least_version}, and {engine.tried} ran the file"
    if graph.parts is not None:
        yield "parts is reserved and must be null in this version"
    holds_code = expected is not None and expected.processor_code
    if holds_code and not graph.compiled_for:
        yield f"compiled_for names no processor, and {format} files hold a processor's own code"
    if not holds_code and graph.compiled_for is not None:
        yield f"compiled_for must be null: {format} files hold no processor's own code"


def _parts(version: str | None) -> tuple[int, ...]:
    """Return the leading numbers of a version such as 1.20.1; an empty tuple if the version is not known."""
    found: list[int] = []
    for part in (version or "").split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def settings_faults(bundle: Bundle) -> Iterator[str]:
    """Yield faults in the defaults and the preview."""
    manifest, defaults = bundle.manifest, bundle.manifest.defaults
    try:
        start = start_step(defaults.steps, defaults.strength)
        find_table(bundle, manifest.scheduler.default_sampler, defaults.steps, start)
    except UserError as error:
        yield f"drawing with the settings of defaults fails: {error}"
    if not 0 <= defaults.guidance <= GUIDANCE:
        yield f"defaults.guidance is {defaults.guidance:g}, outside of 0 to {GUIDANCE:g}"
    preview, channels = manifest.preview, manifest.latents.channels
    if preview is not None and len(preview.matrix) != channels:
        yield f"preview.matrix has {len(preview.matrix)} rows, and latents have {channels} channels"


def passed_over_faults(bundle: Bundle) -> Iterator[str]:
    """Yield differences between the names that the manifest tells readers to ignore and the list of this minor
    version."""
    told = parse((bundle.folder / MANIFEST).read_bytes())["passed_over"]
    for kind, known in (("files", FILES), ("folders", FOLDERS)) if bundle.manifest.minor == MINOR else ():
        if odd := sorted({*told[kind]} ^ {*known}):
            yield f"passed_over.{kind} {'has' if odd[0] in told[kind] else 'does not list'} {odd[0]}"


def picture_faults(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield the path of each installed picture of the original that is not a PNG as docs/BUNDLE.md requires it, with
    the reason."""
    latents = bundle.manifest.latents
    size = latents.width * latents.scale, latents.height * latents.scale
    originals = [picture for picture in (bundle.manifest.picture, *bundle.manifest.golden) if picture is not None]
    for path in dict.fromkeys(original.image for original in originals):
        with (bundle.folder / path).open("rb") as file:
            raw = file.read(HEADER.size)
        if len(raw) < HEADER.size or not raw.startswith(SIGNATURE):
            yield path, "it is not a PNG"
            continue
        *_, width, height, bits, colour = HEADER.unpack(raw)
        if (bits, colour) != RGB or (width, height) != size:
            yield path, f"it is not an RGB picture of 8 bits and {size[0]}x{size[1]} pixels"
