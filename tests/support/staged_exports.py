"""Exports of a sample bundle, in this process or a forked one, so that a hundred of them cost seconds."""

import os
from collections.abc import Callable
from pathlib import Path

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.staging import keep_failed, stage
from pocketdiffusion.runtime.errors import ProofError, UserError
from support.sample_bundle import verdict, write_sample


def export(out: Path, *, many: int = 0, mark: str = "first") -> None:
    """The shape of a real export. `mark` tells one export from another."""
    with stage(out) as folder:
        draft = write_sample(folder, many=many)
        (folder / "report/report.json").write_text(mark)
        seal(folder, draft)


def export_failed(out: Path, mark: str = "first") -> None:
    """An export whose proof fails."""
    with stage(out) as folder:
        draft = write_sample(folder)
        (folder / "report/report.json").write_text(mark)
        bad = verdict("unet.out_sample", psnr_db=20.0)
        seal(folder, draft.model_copy(update={"verdicts": (*draft.verdicts, bad)}))
        kept = keep_failed(folder, out)
        raise ProofError(f"kept as {kept}")


def mark_of(out: Path) -> str:
    return (open_bundle(out).folder / "report/report.json").read_text()


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fork(run: Callable[[], object]) -> int:
    """The child's process id. It exits with 0, with 2 for UserError, with 9 for anything else."""
    child = os.fork()
    if child:
        return child
    code = 9
    try:
        run()
        code = 0
    except UserError:
        code = 2
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
