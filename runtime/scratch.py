"""Temporary files: on the disk of the output, which the user chose, and not in the folder that TMPDIR names."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
VARIABLE = "TMPDIR"  # read by libraries in other languages and by child processes


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Create the temporary files of this process and its children in `folder` within the block, also the files of
    libraries that have no parameter for the folder."""
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
    """Return the message for the user of an `error` that names no file. Files without a name are temporary ones."""
    if error.errno not in FULL:
        return error.strerror or str(error)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"cannot write a temporary file in {folder}: {error.strerror} ({free:.0f} MB free): free some, or set TMPDIR "
        "to a folder on another disk"
    )
