"""Unpack the downloaded packages of a stand-in into its folder, without installing them on the machine."""

import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.devices.standins.arm64 import EMULATOR, ROOT, SITE
from pocketdiffusion.runtime.devices.standins.gpu import FILES
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.tools.packages import packages_of

_FILTER = getattr(tarfile, "data_filter", lambda member, path: member)  # early releases of Python 3.11 have none
_SWIFTSHADER = "package/bin/swiftshader.tar.br"
_UNBROTLI = "process.stdout.write(require('zlib').brotliDecompressSync(require('fs').readFileSync(process.argv[1])))"


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
    """Unpack the files of a package whose path begins with one of `wanted`, except links to the machine's own files."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as reader:
        with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
            archive.extraction_filter = _FILTER
            for member in archive:
                own = not (member.issym() and member.linkname.startswith("/"))
                if own and not member.isdir() and member.name.startswith(wanted):
                    archive.extract(member, folder)
    if reader.returncode:
        raise UserError(f"dpkg-deb cannot read the downloaded package {file.name}: run this again")


def _unpack_gpu(files: dict[str, Path], folder: Path) -> None:
    (packed,) = files.values()
    with tarfile.open(packed) as archive:
        archive.extraction_filter = _FILTER
        archive.extract(_SWIFTSHADER, folder)
    done = subprocess.run(["node", "-e", _UNBROTLI, str(folder / _SWIFTSHADER)], capture_output=True)
    if done.returncode:
        raise UserError(
            f"node cannot decompress {_SWIFTSHADER} (Brotli needs Node 11.7 or newer): install a newer Node, or "
            "run this again"
        )
    (folder / "swiftshader.tar").write_bytes(done.stdout)
    with tarfile.open(folder / "swiftshader.tar") as archive:
        archive.extraction_filter = _FILTER
        for name in FILES:
            archive.extract(name, folder)
    (folder / "swiftshader.tar").unlink()
    shutil.rmtree(folder / "package")


UNPACK: dict[str, Callable[[dict[str, Path], Path], None]] = {"arm64": _unpack_arm64, "gpu": _unpack_gpu}
