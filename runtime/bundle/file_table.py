"""The file table: which files a bundle has, and what is in them. Its digest is the bundle's id."""

import hashlib
from collections.abc import Mapping
from itertools import accumulate

from pocketdiffusion.runtime.bundle.record import Count, Record, Sha256

MANIFEST, DIGEST = "manifest.json", "manifest.sha256"  # the two files that are not in it


class FileEntry(Record):
    sha256: Sha256
    size: Count


def bundle_id(files: Mapping[str, FileEntry]) -> str:
    """The sha256 of the lines "<sha256>  <path>\\n", sorted by path, as sha256sum prints them. Files below report/ are
    left out, as they hold times: two exports of one model have one id."""
    lines = (f"{files[path].sha256}  {path}\n" for path in sorted(files) if not path.startswith("report/"))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_table(files: Mapping[str, FileEntry]) -> None:
    """Raises ValueError where two paths would meet on a disk that ignores case, where one file would have to be
    another's folder, and where the manifest lists itself."""
    spelled: dict[str, str] = {}
    for path in files:
        if path.lower() in (MANIFEST, DIGEST):
            raise ValueError(f"{path} cannot hold its own digest")
        folders = list(accumulate(path.split("/"), lambda a, b: f"{a}/{b}"))[:-1]
        for name in (*folders, path):
            other = spelled.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"{other} and {name} differ in case alone")
        for folder in folders:
            if folder in files:
                raise ValueError(f"{folder} is both a file and a folder")
