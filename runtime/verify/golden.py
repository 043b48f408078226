"""Recorded trajectories in the bundle: raw arrays below golden/NUMBER, one PNG each for people."""

from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, read_array, write_array
from pocketdiffusion.runtime.bundle.manifest import Trajectory as Recorded
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.verify.recording import ARRAYS, FACTS, OPTIONAL, Trajectory


def write_golden(folder: Path, number: int, trajectory: Trajectory) -> Recorded:
    """Writes every array of `trajectory` below `folder`; returns the manifest's record of it."""
    held = [name for name in (*ARRAYS, *OPTIONAL) if getattr(trajectory, name) is not None]
    arrays = {name: write_array(folder, f"golden/{number}/{name}.bin", getattr(trajectory, name)) for name in held}
    write_png(folder / f"golden/{number}.png", trajectory.picture, {})
    facts = {name: getattr(trajectory, name) for name in FACTS}
    return Recorded(**facts, image=f"golden/{number}.png", arrays=arrays)


def read_golden(bundle: Bundle) -> list[Trajectory]:
    """The trajectories that the bundle was judged by. Raises ProofError where it holds none, or not all arrays."""
    trajectories = []
    for number, recorded in enumerate(bundle.manifest.golden):
        if set(recorded.arrays) - set(OPTIONAL) != set(ARRAYS):
            raise ProofError(
                f"{bundle.folder}: golden vector {number} lacks {sorted(set(ARRAYS) - set(recorded.arrays))}"
            )
        arrays = {name: read_array(bundle.folder, ref) for name, ref in recorded.arrays.items()}
        fields: dict[str, Any] = {name: getattr(recorded, name) for name in FACTS} | arrays
        trajectories.append(Trajectory(**fields))
    if not trajectories:
        raise ProofError(f"{bundle.folder} holds no golden vectors to verify against: export it again")
    return trajectories
