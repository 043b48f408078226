"""The iOS demo: the bundle is copied into the folder of the checkout that Xcode copies into the app."""

import shutil
from pathlib import Path

from pocketdiffusion.runtime.engines.coreml import ENGINE
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

SYSTEM = "iOS"
ENGINES = {ENGINE.name: None}  # Core ML is a part of iOS, in any version
DEMO = Path(__file__).resolve().parents[2] / "ios_demo"
PROJECT = "PocketDiffusion.xcodeproj"
BY_HAND = "without it: pocketdiffusion runtime-part DIR OUT, zip OUT, and choose the zip in the app"


def install_bundle(part: Path, name: str, phone: str | None, progress: Progress) -> str:
    """Copy the runtime part in `part` into ios_demo/Bundles of this checkout, as the bundle `name` of the app.

    Raises UserError if pocketdiffusion does not run from a checkout, if a phone is given, or if files cannot be
    written.
    """
    if phone is not None:
        raise UserError("the app for iOS is put on a phone by Xcode: leave out --phone, and choose the phone there")
    if not (DEMO / PROJECT).is_dir():
        raise UserError(
            f"there is no ios_demo/{PROJECT} next to the installed package: install pocketdiffusion from a "
            f"checkout (pip install -e .); {BY_HAND}"
        )
    place, arriving = DEMO / "Bundles" / name, DEMO / "Bundles" / f".{name}.arriving"
    progress("copying")
    try:
        shutil.rmtree(arriving, ignore_errors=True)
        shutil.copytree(part, arriving)
        shutil.rmtree(place, ignore_errors=True)
        arriving.rename(place)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return f"{name} is in {place}: open ios_demo/{PROJECT} in Xcode and run it, which puts it into the app"
