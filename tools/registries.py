"""Download the packages of a stand-in from the registries that pip, npm and apt are configured for.

Root is not needed: apt uses separate lists, in a scratch folder. A file is accepted only by its sha256.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.tools.packages import DEBIAN, Package

_KEYRINGS = tuple(f"/usr/share/keyrings/debian-archive-keyring.{kind}" for kind in ("pgp", "gpg"))


def download(packages: Sequence[Package], folder: Path, scratch: Path, progress: Progress) -> dict[str, Path]:
    """Download packages to `folder`, and return the file of each by the package's name. Each has the sha256 of the
    table or of Debian's signed index. Raise UserError if one cannot be downloaded or differs."""
    files: dict[str, Path] = {}
    for registry, fetch in (("debian", _fetch_debian), ("pypi", _fetch_pypi), ("npm", _fetch_npm)):
        wanted = [package for package in packages if package.registry == registry]
        if wanted:
            files |= fetch(wanted, folder, scratch, progress)
    return files


def check_hash(path: Path, package: Package, sha256: str) -> None:
    """Raise UserError if the file does not have the sha256 of the table."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(
            f"the downloaded file of {package.name} {package.version} has the sha256 {found}, and "
            f"tools/packages.json has {sha256}: check the registry or mirror, and run this again"
        )


def _fetch_pypi(packages: Sequence[Package], folder: Path, scratch: Path, progress: Progress) -> dict[str, Path]:
    platforms = [f"manylinux{glibc}_aarch64" for glibc in ("_2_28", "_2_27", "2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(folder)]
    command += [option for tag in platforms for option in ("--platform", tag)]
    _run("pip", [*command, *(f"{p.name}=={p.version}" for p in packages)])
    return {p.name: _match(folder, f"{p.name.replace('-', '_')}-{p.version}-*.whl", p, p.sha256) for p in packages}


def _fetch_npm(packages: Sequence[Package], folder: Path, scratch: Path, progress: Progress) -> dict[str, Path]:
    files = {}
    for package in packages:
        _run("npm", ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"])
        name = package.name.removeprefix("@").replace("/", "-")
        files[package.name] = _match(folder, f"{name}-{package.version}.tgz", package, package.sha256)
    return files


def _fetch_debian(packages: Sequence[Package], folder: Path, scratch: Path, progress: Progress) -> dict[str, Path]:
    """Download packages of Debian with separate lists, without root and without a change of the machine's sources."""
    apt = ["-c", str(_apt_config(scratch))]
    names = [f"{package.name}:{package.machine}" for package in packages]
    _run("apt-get", ["apt-get", *apt, "-qq", "update"])
    shown = _run("apt-cache", ["apt-cache", *apt, "show", "--no-all-versions", *names])
    records = [dict(re.findall(r"^([A-Za-z0-9]+): (.+)$", record, re.M)) for record in shown.split("\n\n")]
    index = {(r.get("Package"), r.get("Architecture")): r for r in records}
    lacking = [name for name, p in zip(names, packages, strict=True) if (p.name, p.machine) not in index]
    if lacking:
        raise UserError(
            f"the Debian mirror of this machine has no {', '.join(lacking)} in {DEBIAN}: use another mirror"
        )
    _run("apt-get", ["apt-get", *apt, "-qq", "download", *names], folder)
    files = {}
    for package in packages:
        entry = index[package.name, package.machine]
        newer = entry["Version"] != package.version
        if newer:
            progress(
                f"{package.name}: Debian has {entry['Version']} now, and the table {package.version}: checked by the "
                "signed index"
            )
        name = f"{package.name}_{entry['Version'].replace(':', '%3a')}_{package.machine}.deb"
        files[package.name] = _match(folder, name, package, entry["SHA256"] if newer else package.sha256)
    return files


def _apt_config(scratch: Path) -> Path:
    """Write a configuration of apt with the machine's own Debian mirror as source and its state in `scratch`. Return
    its path."""
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(COMPONENT)"]
    shown = _run("apt-get", [*command, "Created-By: Packages"])
    mirrors = [line.split()[0] for line in shown.splitlines() if re.search(r"/debian/? main$", line)]
    if not mirrors:
        raise UserError("apt's sources name no mirror of Debian, whose packages the stand-in arm64 needs: add one")
    state = scratch / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    signers = [f"[signed-by={key}] " for key in _KEYRINGS if Path(key).is_file()]
    (state / "sources.list").write_text(f"deb {''.join(signers[:1])}{mirrors[0]} {DEBIAN} main\n")
    lines = {
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # if root runs this, no other user can read its scratch folder
        "Acquire::Languages": "none",
    }
    text = "".join(f'{key} "{value}";\n' for key, value in lines.items())
    config = state / "apt.conf"
    config.write_text(text + 'APT::Architectures { "amd64"; "arm64"; };\n')
    return config


def _match(folder: Path, pattern: str, package: Package, sha256: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"the registry {package.registry} has no {package.name} {package.version}: check the index that "
            f"{package.registry}'s client is configured for"
        )
    check_hash(found[0], package, sha256)
    return found[0]


def _run(tool: str, command: Sequence[str], folder: Path | None = None) -> str:
    """Run `command` and return its stdout. Raise UserError with the last line of its output if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise UserError(f"{tool} failed: {said[-1] if said else f'code {done.returncode}'}")
    return done.stdout
