"""The bundles that come with the app: the runtime part of each as a zip, which the app unpacks when it first starts."""

from pathlib import Path
from tempfile import TemporaryDirectory

from android_demo.packing.archive import Entry, write_archive
from pocketdiffusion.apps import load_app
from pocketdiffusion.deploy import check_app
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part


def bundle_asset(folder: Path) -> Entry:
    """Return the asset of the bundle `folder`. Raises UserError and ProofError where it is no bundle that passed its
    proof and that the app runs."""
    with TemporaryDirectory() as scratch:
        part, packed = Path(scratch) / folder.name, Path(scratch) / "packed.zip"
        check_app(copy_runtime_part(folder, part).manifest, load_app("android"))
        paths = sorted(path for path in part.rglob("*") if path.is_file())
        entries = (Entry(path.relative_to(part).as_posix(), path.read_bytes(), stored=False) for path in paths)
        write_archive(packed, entries)
        return Entry(f"assets/bundles/{folder.name}.zip", packed.read_bytes(), stored=True)
