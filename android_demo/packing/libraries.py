"""The AARs of the engines: fetched once, compared with their digests, and what of them an APK needs."""

import hashlib
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from pocketdiffusion.runtime.errors import UserError

ABI = "arm64-v8a"
PINNED = Path(__file__).with_name("libraries.toml")


@dataclass(frozen=True, eq=False)
class Library:
    """An entry of libraries.toml: either `maven`, or `npm` and `member`, says where the AAR comes from."""

    name: str
    sha256: str
    libraries: Mapping[str, int]
    maven: str | None = None
    npm: str | None = None
    member: str | None = None


def read_pinned(path: Path = PINNED) -> list[Library]:
    """Return what libraries.toml lists."""
    return [Library(name, **fields) for name, fields in tomllib.loads(path.read_text()).items()]


def fetch(library: Library, cache: Path, say: Callable[[str], None]) -> Path:
    """Return the AAR of `library` in the folder `cache`, fetched where it is not there. Raises UserError where it
    cannot be fetched, or is another file than the pinned one, which is then not kept."""
    kept = cache / f"{library.name}-{library.sha256[:16]}.aar"
    if not kept.exists():
        say(f"fetching {library.npm or library.maven}")
        raw = _from_npm(library) if library.npm else _from_maven(library)
        _compare(library, raw)
        cache.mkdir(parents=True, exist_ok=True)
        arriving = kept.with_suffix(".arriving")
        arriving.write_bytes(raw)
        arriving.rename(kept)
    _compare(library, kept.read_bytes())
    return kept


def native_libraries(library: Library, aar: Path) -> dict[str, bytes]:
    """Return the arm64 libraries of an AAR by their file names. Raises UserError where they are not those that are
    pinned."""
    with ZipFile(aar) as opened:
        prefix = f"jni/{ABI}/"
        found = {name.removeprefix(prefix): name for name in opened.namelist() if name.startswith(prefix)}
        found.pop("", None)
        if found.keys() != library.libraries.keys():
            raise UserError(f"{aar} has the libraries {sorted(found)}, where {PINNED.name} lists others")
        return {name: opened.read(member) for name, member in sorted(found.items())}


def classes_jar(aar: Path) -> ZipFile:
    """Return the Java classes of an AAR."""
    with ZipFile(aar) as opened:
        return ZipFile(BytesIO(opened.read("classes.jar")))


def _from_npm(library: Library) -> bytes:
    assert library.npm is not None and library.member is not None
    with TemporaryDirectory() as scratch:
        _run(["npm", "pack", "--silent", library.npm], Path(scratch), library.npm)
        (packed,) = Path(scratch).glob("*.tgz")
        with tarfile.open(packed) as archive:
            member = archive.extractfile(library.member)
            assert member is not None
            return member.read()


def _from_maven(library: Library) -> bytes:
    assert library.maven is not None
    with TemporaryDirectory() as scratch:
        artifact = [f"-Dartifact={library.maven}:aar", f"-DoutputDirectory={scratch}"]
        _run(["mvn", "-B", "-ntp", "-q", COPY, *artifact], Path(scratch), library.maven)
        (copied,) = Path(scratch).glob("*.aar")
        return copied.read_bytes()


COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def _run(command: list[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise UserError(f"cannot fetch {what} by {command[0]}: {said[0]}")


def _compare(library: Library, raw: bytes) -> None:
    found = hashlib.sha256(raw).hexdigest()
    if found != library.sha256:
        raise UserError(f"{library.name} has the sha256 {found}, where {PINNED.name} pins {library.sha256}: remove it")
