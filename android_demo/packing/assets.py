"""The bundles in the APK: the runtime part of each as a zip, which the app unpacks at its first start.

    python -m android_demo.packing.assets BUNDLE [BUNDLE ...]

writes them to Gradle's folder of assets, android_demo/app/src/main/assets, which git ignores. pack.py does not use this
folder.
"""

import sys
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from android_demo.packing.archive import Entry, write_archive
from pocketdiffusion.apps import load_app
from pocketdiffusion.cli.console import run
from pocketdiffusion.deploy import check_app
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part


def bundle_assets(folder: Path) -> tuple[Entry, Entry]:
    """Return the assets of the bundle `folder`: NAME.id, the bundle_id, by which the app notices that an update has
    another bundle, and NAME.zip. Raises UserError if the app cannot run the bundle, and ProofError if it did not
    pass."""
    with TemporaryDirectory() as scratch:
        part, packed = Path(scratch) / folder.name, Path(scratch) / "packed.zip"
        manifest = copy_runtime_part(folder, part).manifest
        check_app(manifest, load_app("android"))
        paths = sorted(path for path in part.rglob("*") if path.is_file())
        entries = (Entry(path.relative_to(part).as_posix(), path.read_bytes(), stored=False) for path in paths)
        write_archive(packed, entries)
        name = f"assets/bundles/{folder.name}"
        return (
            Entry(f"{name}.id", manifest.bundle_id.encode(), stored=True),
            Entry(f"{name}.zip", packed.read_bytes(), stored=True),
        )


def write_assets(folders: list[Path]) -> None:
    """Write the assets of the bundles `folders` into the app's sources."""
    for entry in chain.from_iterable(map(bundle_assets, folders)):
        path = Path(__file__).parents[1] / "app/src/main" / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.data)


if __name__ == "__main__":
    run(lambda: write_assets([Path(each).resolve() for each in sys.argv[1:]]))
