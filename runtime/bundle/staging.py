"""A bundle is written next to its place, flushed to the disk, and moved there by one rename.

An unfinished export of NAME leaves files only in .NAME.partial, a folder that its process keeps locked (flock, which
the system releases when the process ends in any way), and in .NAME.scratch, which is locked as well:

    .NAME.partial/bundle    the bundle that is being written
    .NAME.partial/scratch   temporary files, of the converters too
    .NAME.partial/old       the bundle that was in its place, for the moment between two renames
    .NAME.scratch           temporary files of the work before: recording, measuring

POSIX only: phones and readers of bundles do not use this module."""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.file_table import MANIFEST
from pocketdiffusion.runtime.bundle.folder import list_files
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.scratch import FULL, scratch_in


@contextmanager
def stage(out: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of `out`. When the block ends well, that folder, which must by then be a proven
    bundle (`seal`), becomes `out`, in place of an older bundle if there is one.

    If the block ends otherwise, the folder is removed and `out` stays unchanged. What a killed process left is
    removed by the next export to the same place. Raise UserError if `out` holds anything except a bundle, if
    another process is exporting to it, if it cannot be written, or if the disk is full; ProofError if the folder
    is not a proven bundle."""
    out = _place(out)
    with _claimed(out) as work:
        try:
            staged, scratch = work / "bundle", work / "scratch"
            staged.mkdir()
            scratch.mkdir()
            with scratch_in(scratch):
                yield staged
            open_bundle(staged, check=False)
            _publish(staged, out, work / "old")
        except OSError as error:
            if error.errno in FULL:
                raise UserError(_full(error, out, work)) from error
            raise


@contextmanager
def scratch_next_to(out: Path) -> Iterator[None]:
    """Let temporary files be made in .NAME.scratch next to `out`, which is removed when the block ends. The next
    process removes what a killed one left. Raise UserError if it cannot be made, if another process works next to
    `out`, or if a disk is full."""
    out = _place(out)
    with _claimed(out, "scratch") as work:
        try:
            with scratch_in(work):
                yield
        except OSError as error:
            if error.errno in FULL:
                raise UserError(_full(error, out, work)) from error
            raise


def check_output_folder(out: Path) -> None:
    """Raise UserError if `stage` would fail at its beginning, before long work. Leaves no files."""
    with _claimed(_place(out)):
        pass


def keep_failed(staged: Path, out: Path) -> Path:
    """Move the sealed but failed bundle to OUT.failed, in place of an older one, and return that path. Call it inside
    `with stage(out)` and raise afterwards: `out` stays unchanged. Raise UserError if OUT.failed is not a bundle."""
    out = _place(out)
    failed = out.with_name(f"{out.name}.failed")
    open_unproven(staged, check=False)
    _publish(staged, failed, staged.parent / "old.failed")
    return failed


def exchange(a: Path, b: Path) -> bool:
    """Swap two paths of one disk atomically. Return False if the system has no such call."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if call(here, os.fsencode(a), here, os.fsencode(b), swap) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _place(out: Path) -> Path:
    if out.name in ("", ".."):
        raise UserError(f"{out} cannot be an output folder: give a new folder, such as {out / 'bundle'}")
    return Path(os.path.realpath(out.parent)) / out.name


def _refuse_foreign(out: Path) -> None:
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} exists and is a file or a link, not a folder: choose another name")
    if not any(out.iterdir()):
        return
    try:
        known = json.loads((out / MANIFEST).read_bytes())["files"].keys()
        foreign = sorted(list_files(out).keys() - known)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ProofError) as error:
        raise UserError(
            f"{out} exists and is not a folder that an export wrote, so it is not replaced: choose another folder"
        ) from error
    if foreign:
        raise UserError(f"{out} holds {foreign[0]!r}, which no export wrote: move it, or choose another place")


@contextmanager
def _claimed(out: Path, suffix: str = "partial") -> Iterator[Path]:
    """Yield the empty work folder, which no other process uses until the block ends."""
    made = [folder for folder in out.parents if not folder.exists()]
    work, lock = _claim(out, suffix)
    try:
        if suffix == "partial":
            _refuse_foreign(out)
        yield work
    finally:
        _restore(work / "old", out)
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _claim(out: Path, suffix: str) -> tuple[Path, int]:
    """Return the work folder, empty, and the descriptor that holds its lock."""
    work = out.with_name(f".{out.name}.{suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = _lock(work, out)
            if lock is not None:
                break
        _restore(work / "old", out)
        for entry in work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror} ({error.filename})") from error
    return work, lock


def _lock(work: Path, out: Path) -> int | None:
    """Return the descriptor that holds the lock of `work`. None if its former owner removed the folder just now. Raise
    UserError if another process holds the lock."""
    fresh = True
    try:
        work.mkdir()
    except FileExistsError:
        fresh = False
    try:
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(work, follow_symlinks=False)):
                return lock
    except BlockingIOError:
        os.close(lock)
        raise UserError(f"another process is exporting to {out}: wait for it, or choose another place") from None
    except OSError:  # a disk without locks
        if fresh:
            return lock
        os.close(lock)
        raise UserError(
            f"{work} belongs to another export to {out}: wait for it; if none is running, remove {work}"
        ) from None
    os.close(lock)
    return None


def _publish(staged: Path, out: Path, aside: Path) -> None:
    _refuse_foreign(out)
    _flush(staged)
    if not os.path.lexists(out):
        staged.rename(out)
    elif not exchange(staged, out):
        out.rename(aside)
        staged.rename(out)
    _sync(out.parent)


def _restore(aside: Path, out: Path) -> None:
    """Undo the first of two renames if the second did not happen."""
    if aside.exists() and not os.path.lexists(out):
        aside.rename(out)


def _flush(folder: Path) -> None:
    for inside, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(inside, name))
        _sync(Path(inside))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full(error: OSError, out: Path, work: Path) -> str:
    place = error.filename or out
    disk = Path(place).parent if error.filename and Path(place).parent.is_dir() else work
    if error.errno == errno.EFBIG:
        return f"cannot write {place}: a file grew past the largest size allowed here (ulimit -f): use another disk"
    sizes = (file.stat().st_size for file in work.rglob("*") if file.is_file())
    written, free = sum(sizes) / 1e6, shutil.disk_usage(disk).free / 1e6
    return f"cannot write {place}: disk full after {written:.0f} MB ({free:.0f} MB free): free some or use another disk"
