"""Sets a stand-in up from the package registries: download, compare with the table's sha256, unpack, try it.

The registries are those that pip, npm and apt are configured for. Nothing is installed on the machine and nothing needs
root: Debian's packages are unpacked into the stand-in's own folder, with lists of their own. What is needed on the
machine: Linux on x86_64; for arm64 apt-get and dpkg-deb; for gpu npm and node.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from pocketdiffusion.runtime.devices.arm64 import EMULATOR, ROOT, SITE
from pocketdiffusion.runtime.devices.gpu import FILES
from pocketdiffusion.runtime.devices.packages import DEBIAN, PYTHON, Package, packages_of
from pocketdiffusion.runtime.devices.stamp import write_stamp
from pocketdiffusion.runtime.errors import UserError

Say = Callable[[str], None]
TOOLS = {"arm64": ("apt-get", "apt-cache", "dpkg-deb"), "gpu": ("npm", "node")}
_KEYRINGS = tuple(f"/usr/share/keyrings/debian-archive-keyring.{kind}" for kind in ("pgp", "gpg"))
_FILTER = getattr(tarfile, "data_filter", lambda member, path: member)  # early releases of Python 3.11 have none
_SWIFTSHADER = "package/bin/swiftshader.tar.br"
_UNBROTLI = "process.stdout.write(require('zlib').brotliDecompressSync(require('fs').readFileSync(process.argv[1])))"


def set_up(name: str, cache: Path, say: Say) -> Path:
    """Puts the stand-in `name` together as `cache`/`name`, in place of one that is there. Says what each stage took.

    Raises UserError where the machine lacks a tool, a registry gives no such package, or a package is not what the
    table says.
    """
    check_machine(name)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
        downloads, folder = Path(scratch, "downloads"), Path(scratch, name)
        downloads.mkdir()
        folder.mkdir()
        packages = packages_of(name)
        with _stage(f"{name}: download {len(packages)} packages", say):
            files = download(packages, downloads, Path(scratch), say)
        with _stage(f"{name}: unpack", say):
            UNPACK[name](files, folder)
            write_stamp(folder, packages)
        if (cache / name).exists():
            shutil.rmtree(cache / name)
        folder.rename(cache / name)
    return cache / name


def check_machine(name: str) -> None:
    """Raises UserError where this machine cannot have the stand-in."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UserError(f"the stand-in {name} needs Linux on x86_64, this is {sys.platform} on {platform.machine()}")
    missing = missing_tools(name)
    if missing:
        raise UserError(f"the stand-in {name} needs {', '.join(missing)}, which this machine lacks")


def missing_tools(name: str) -> list[str]:
    """Programs that `set_up` would call and that are not there."""
    return [tool for tool in TOOLS[name] if shutil.which(tool) is None]


def download(packages: Sequence[Package], folder: Path, scratch: Path, say: Say) -> dict[str, Path]:
    """The file of each package, by its name: each has the sha256 of the table, or of Debian's signed index."""
    files: dict[str, Path] = {}
    for registry, fetch in (("debian", _fetch_debian), ("pypi", _fetch_pypi), ("npm", _fetch_npm)):
        wanted = [package for package in packages if package.registry == registry]
        if wanted:
            files |= fetch(wanted, folder, scratch, say)
    return files


def check_hash(path: Path, package: Package, sha256: str) -> None:
    """Raises UserError where the file is another than the table's."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{package.name} {package.version} is not the file of the table: sha256 {found}, not {sha256}")


def _fetch_pypi(packages: Sequence[Package], folder: Path, scratch: Path, say: Say) -> dict[str, Path]:
    platforms = [f"manylinux{glibc}_aarch64" for glibc in ("_2_28", "_2_27", "2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(folder)]
    command += [option for tag in platforms for option in ("--platform", tag)]
    _run("pip", [*command, *(f"{p.name}=={p.version}" for p in packages)])
    return {p.name: _match(folder, f"{p.name.replace('-', '_')}-{p.version}-*.whl", p, p.sha256) for p in packages}


def _fetch_npm(packages: Sequence[Package], folder: Path, scratch: Path, say: Say) -> dict[str, Path]:
    files = {}
    for package in packages:
        _run("npm", ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"])
        name = package.name.removeprefix("@").replace("/", "-")
        files[package.name] = _match(folder, f"{name}-{package.version}.tgz", package, package.sha256)
    return files


def _fetch_debian(packages: Sequence[Package], folder: Path, scratch: Path, say: Say) -> dict[str, Path]:
    """With lists of its own, so that neither root nor a change of the machine's sources is needed."""
    apt = ["-c", str(_apt_config(scratch))]
    names = [f"{package.name}:{package.machine}" for package in packages]
    _run("apt-get", ["apt-get", *apt, "-qq", "update"])
    shown = _run("apt-cache", ["apt-cache", *apt, "show", "--no-all-versions", *names])
    records = [dict(re.findall(r"^([A-Za-z0-9]+): (.+)$", record, re.M)) for record in shown.split("\n\n")]
    index = {(r.get("Package"), r.get("Architecture")): r for r in records}
    lacking = [name for name, p in zip(names, packages, strict=True) if (p.name, p.machine) not in index]
    if lacking:
        raise UserError(f"Debian's {DEBIAN} has no {', '.join(lacking)}")
    _run("apt-get", ["apt-get", *apt, "-qq", "download", *names], folder)
    files = {}
    for package in packages:
        entry = index[package.name, package.machine]
        newer = entry["Version"] != package.version
        if newer:
            say(f"{package.name}: Debian has {entry['Version']} now, the table {package.version}: by the signed index")
        name = f"{package.name}_{entry['Version'].replace(':', '%3a')}_{package.machine}.deb"
        files[package.name] = _match(folder, name, package, entry["SHA256"] if newer else package.sha256)
    return files


def _apt_config(scratch: Path) -> Path:
    """A configuration of apt whose sources are the machine's own Debian mirror, and whose state lies in `scratch`."""
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(COMPONENT)"]
    shown = _run("apt-get", [*command, "Created-By: Packages"])
    mirrors = [line.split()[0] for line in shown.splitlines() if re.search(r"/debian/? main$", line)]
    if not mirrors:
        raise UserError("apt's sources name no mirror of Debian: the stand-in arm64 is made of Debian's packages")
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
        "APT::Sandbox::User": "root",  # where root runs this: its scratch folder is for no other user
        "Acquire::Languages": "none",
    }
    text = "".join(f'{key} "{value}";\n' for key, value in lines.items())
    config = state / "apt.conf"
    config.write_text(text + 'APT::Architectures { "amd64"; "arm64"; };\n')
    return config


def _unpack_arm64(files: dict[str, Path], folder: Path) -> None:
    root = folder / ROOT
    root.mkdir()
    (root / "lib").symlink_to("usr/lib")
    for package in packages_of("arm64"):
        file = files[package.name]
        if package.registry == "pypi":
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(folder / SITE)
        elif package.name == "qemu-user":
            _unpack_deb(file, folder, ("./usr/bin/qemu-aarch64",))
            (folder / EMULATOR).parent.mkdir()
            (folder / "usr/bin/qemu-aarch64").rename(folder / EMULATOR)
            shutil.rmtree(folder / "usr")
        else:
            _unpack_deb(file, root, ("./usr/lib/", f"./usr/bin/python{PYTHON}"))


def _unpack_deb(file: Path, folder: Path, wanted: tuple[str, ...]) -> None:
    """Of the package's files those whose path begins with one of `wanted`, but no link to the machine's own files."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as reader:
        with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
            archive.extraction_filter = _FILTER
            for member in archive:
                own = not (member.issym() and member.linkname.startswith("/"))
                if own and not member.isdir() and member.name.startswith(wanted):
                    archive.extract(member, folder)
    if reader.returncode:
        raise UserError(f"dpkg-deb cannot read {file.name}")


def _unpack_gpu(files: dict[str, Path], folder: Path) -> None:
    (packed,) = files.values()
    with tarfile.open(packed) as archive:
        archive.extraction_filter = _FILTER
        archive.extract(_SWIFTSHADER, folder)
    done = subprocess.run(["node", "-e", _UNBROTLI, str(folder / _SWIFTSHADER)], capture_output=True)
    if done.returncode:
        raise UserError(f"node cannot unpack {_SWIFTSHADER}")
    (folder / "swiftshader.tar").write_bytes(done.stdout)
    with tarfile.open(folder / "swiftshader.tar") as archive:
        archive.extraction_filter = _FILTER
        for name in FILES:
            archive.extract(name, folder)
    (folder / "swiftshader.tar").unlink()
    shutil.rmtree(folder / "package")


UNPACK: dict[str, Callable[[dict[str, Path], Path], None]] = {"arm64": _unpack_arm64, "gpu": _unpack_gpu}


def _match(folder: Path, pattern: str, package: Package, sha256: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(f"the registry gave no {package.name} {package.version}")
    check_hash(found[0], package, sha256)
    return found[0]


def _run(tool: str, command: Sequence[str], folder: Path | None = None) -> str:
    """What `command` prints. Raises UserError with the last thing that it complained of."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise UserError(f"{tool} failed: {said[-1] if said else f'code {done.returncode}'}")
    return done.stdout


@contextmanager
def _stage(title: str, say: Say) -> Iterator[None]:
    begun = perf_counter()
    yield
    say(f"{title}: {perf_counter() - begun:.1f} s")
