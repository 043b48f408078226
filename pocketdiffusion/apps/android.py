"""The Android demo: the bundle is pushed by adb into the app's own folder on the phone."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

SYSTEM = "Android"
ENGINES = {"onnxruntime": "1.29.0", "litert": "2.16.1"}
PACKAGE = "pocketdiffusion.app"
FILES = f"/sdcard/Android/data/{PACKAGE}/files"  # the folder that getExternalFilesDir returns
BUNDLES = f"{FILES}/bundles"
LEAST_SDK = 26  # Android 8
ABI = "arm64-v8a"
BY_HAND = "without a phone: pocketdiffusion runtime-part DIR OUT, zip OUT, and import the zip in the app"


def install_bundle(part: Path, name: str, phone: str | None, progress: Progress) -> str:
    """Push the runtime part in `part` to the phone with the serial number `phone`, as the bundle `name` of the app.

    The files are first pushed to a folder that the app ignores, which is renamed when all are there. Raises UserError
    if there is no adb, no phone or several, if the phone cannot run the app or does not have it, and if adb fails.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise UserError(f"adb is not installed or not on PATH: install Android's platform tools; {BY_HAND}")
    command = [adb, "-s", _choose(_phones(adb), phone)]
    _check(command)
    place, arriving = f"{BUNDLES}/{name}", f"{BUNDLES}/.{name}.arriving"
    progress("pushing")
    _run([*command, "shell", f"rm -rf {quote(arriving)} && mkdir -p {BUNDLES}"])
    _run([*command, "push", str(part), arriving])
    _run([*command, "shell", f"rm -rf {quote(place)} && mv {quote(arriving)} {quote(place)}"])
    return f"{name} is on the phone, in {place}: choose it in the app"


def _phones(adb: str) -> dict[str, str]:
    """Return adb's state of each connected phone by serial number; `device` means ready."""
    lines = _run([adb, "devices"]).split("List of devices attached", 1)[-1].splitlines()
    return {words[0]: words[1] for words in (line.split("\t") for line in lines) if len(words) == 2}


def _choose(phones: Mapping[str, str], requested: str | None) -> str:
    """Return the serial number of the phone to push to."""
    if requested is not None and requested not in phones:
        raise UserError(f"adb finds no phone {requested}: it finds {', '.join(phones) or 'none'}")
    if not phones:
        raise UserError(f"adb finds no phone: connect one, with USB debugging on in its developer options; {BY_HAND}")
    if requested is None and len(phones) > 1:
        raise UserError(f"adb finds {len(phones)} phones: choose one with --phone, {' or '.join(phones)}")
    serial = requested or next(iter(phones))
    if phones[serial] == "unauthorized":
        raise UserError(f"the phone {serial} does not trust this computer yet: unlock it and allow USB debugging")
    if phones[serial] != "device":
        raise UserError(f"the phone {serial} is {phones[serial]}: plug it in again, or run adb reconnect")
    return serial


def _check(command: list[str]) -> None:
    """Raise UserError if the phone cannot run the app, or the app is not installed."""
    sdk = _run([*command, "shell", "getprop ro.build.version.sdk"]).strip()
    if not sdk.isdigit() or int(sdk) < LEAST_SDK:
        raise UserError(f"the phone has Android API {sdk or 'unknown'}: the app needs {LEAST_SDK} (Android 8) or newer")
    abis = _run([*command, "shell", "getprop ro.product.cpu.abilist"]).strip()
    if ABI not in abis.split(","):
        raise UserError(f"the phone runs {abis or 'nothing known'}: the app's libraries are only for {ABI}")
    if "package:" not in _run([*command, "shell", f"pm path {PACKAGE} || true"]):
        raise UserError(
            f"the app {PACKAGE} is not installed on the phone: run `make apk`, then `adb install -r "
            "build/pocket-diffusion.apk`"
        )
    if "there" not in _run(
        [*command, "shell", f"test -d {FILES} && echo there || true"]
    ):  # a folder made by adb does not belong to the app
        raise UserError("the app has no folder on the phone yet: open it there once, then run this again")


def _run(command: list[str]) -> str:
    """Return the output of a command of adb. Raises UserError, with its last line, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or [f"it ended with {done.returncode}"]
        raise UserError(f"`adb {' '.join(command[1:])}` failed: {said[-1].strip()}")
    return done.stdout
