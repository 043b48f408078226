"""Temporary files: beside what is written, on the disk that the user chose, and not where TMPDIR happens to be."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
VARIABLE = "TMPDIR"  # what libraries in other languages and started processes ask


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Let the temporary files of this process, and of those that it starts, be made in `folder` within the block: the
    libraries' too, which take no folder."""
    before, variable = tempfile.tempdir, os.environ.get(VARIABLE)
    tempfile.tempdir = os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = variable


def describe_nameless(error: OSError) -> str:
    """Return what `error`, which names no file, says to the user. Files without a name are temporary ones."""
    if error.errno not in FULL:
        return error.strerror or str(error)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"cannot write a temporary file in {folder}: {error.strerror} ({free:.0f} MB free): free some, or set TMPDIR "
        "to a folder on another disk"
    )
