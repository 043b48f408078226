"""The licences of other people's work in the APK, which have to be shipped with it, in assets/licences. Licences of
models are in their bundles."""

from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

from android_demo.packing.archive import Entry
from android_demo.packing.libraries import Library

FOLDER = "assets/licences"
OURS = Path(__file__).parents[2] / "LICENSE"  # Apache 2.0, like Kotlin's library and kotlinx.serialization


def licence_assets(aars: Mapping[Library, Path], desktop: Path) -> Iterator[Entry]:
    """Yield our own licence, each distinct licence in AARs, and onnxruntime's: its text from the Python package, and
    the notices of its third parties from the jar `desktop` of the same version."""
    texts = {"pocket-diffusion": OURS.read_bytes()}
    for library, aar in aars.items():
        with ZipFile(aar) as opened:
            if "LICENSE" in opened.namelist() and (text := opened.read("LICENSE")) not in texts.values():
                texts[library.name] = text
    texts["onnxruntime"] = Path(str(distribution("onnxruntime").locate_file("onnxruntime/LICENSE"))).read_bytes()
    with ZipFile(desktop) as opened:
        texts["onnxruntime-third-party"] = opened.read("ThirdPartyNotices.txt")
    for name, text in sorted(texts.items()):
        yield Entry(f"{FOLDER}/{name}.txt", text, stored=False)
