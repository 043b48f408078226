"""deploy: check that an app can run a bundle, and copy the bundle's runtime part to the app."""

import re
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.apps import App, load_app
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.manifest import Manifest
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part
from pocketdiffusion.runtime.engines import engine_names, find_engine
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def deploy(folder: Path, app: str, *, name: str | None, phone: str | None, progress: Progress) -> str:
    """Copy the runtime part of the bundle `folder` into `app` under `name` (None: the folder's name), and return where
    it is.

    Raises ProofError if the bundle did not pass or is incomplete. Raises UserError if there is no such app, the app
    cannot run the bundle, or copying fails.
    """
    chosen = load_app(app)
    name = name or folder.resolve().name
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be used as a bundle's name: use letters, digits, '.', '_' and '-' (--name)")
    progress("hashes")
    check_app(open_bundle(folder).manifest, chosen)
    with TemporaryDirectory() as scratch:
        part = Path(scratch) / name
        copy_runtime_part(folder, part)
        return chosen.install_bundle(part, name, phone, progress)


def check_app(manifest: Manifest, app: App) -> None:
    """Raise UserError if `app` is for another system than the bundle, or has an engine for none of its formats."""
    target = manifest.target
    if target.os_floor is not None and not target.os_floor.startswith(f"{app.system} "):
        raise UserError(
            f"the bundle is for {target.title}, {target.os_floor} or newer, and the app {app.name} is for "
            f"{app.system}: export the model for a phone with {app.system}, which `pocketdiffusion targets` lists"
        )
    refusals = [_refusal(manifest, format, app) for format in manifest.graphs]
    if all(reason is not None for reason in refusals):
        raise UserError(f"the app {app.name} cannot run the bundle: {'; '.join(filter(None, refusals))}")


def _refusal(manifest: Manifest, format: str, app: App) -> str | None:
    """Return why the app cannot run the bundle's graphs of `format`, None if it can."""
    facts = find_engine(format)
    if facts is None or facts.name not in app.engines:
        return f"the app has no engine for {format}, only for {' and '.join(formats_of(app))}: export with --format"
    version = app.engines[facts.name]
    for graph, artifact in manifest.graphs[format].items():
        needed = artifact.engine
        if needed is None:
            continue
        if needed.name != facts.name:
            return f"{graph} is for the engine {needed.name}, and the app has {facts.name}"
        if needed.least_version is not None and version is not None and is_older(version, needed.least_version):
            return f"{graph} needs {facts.name} {needed.least_version} or newer, and the app has {version}"
    return None


def formats_of(app: App) -> list[str]:
    """Return the formats for which `app` has an engine."""
    found = {name: find_engine(name) for name in engine_names()}
    return [name for name, facts in found.items() if facts is not None and facts.name in app.engines]


def is_older(version: str, least: str) -> bool:
    """Return True if `version` is older than `least`, number by number: 2.9 is older than 2.17, and 2.17 is as old
    as 2.17.0."""
    pairs = zip_longest(*(map(int, re.findall(r"\d+", text)) for text in (version, least)), fillvalue=0)
    return next((ours < theirs for ours, theirs in pairs if ours != theirs), False)
