"""Recorded trajectories in the bundle: raw arrays below golden/NUMBER, one PNG each for people."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, read_array, require_proof, write_array
from pocketdiffusion.runtime.bundle.manifest import ArrayRef, GoldenCase
from pocketdiffusion.runtime.bundle.manifest import Trajectory as Recorded
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import ARRAYS, FACTS, OPTIONAL, Case, Trajectory, cases


def write_golden(folder: Path, number: int, trajectory: Trajectory) -> Recorded:
    """Writes every array of `trajectory` below `folder`; returns the manifest's record of it."""
    held = [name for name in (*ARRAYS, *OPTIONAL) if getattr(trajectory, name) is not None]
    arrays = {name: write_array(folder, f"golden/{number}/{name}.bin", getattr(trajectory, name)) for name in held}
    write_png(folder / f"golden/{number}.png", trajectory.picture, {})
    facts = {name: getattr(trajectory, name) for name in FACTS}
    return Recorded(**facts, image=f"golden/{number}.png", arrays=arrays)


def write_case(folder: Path, spec: GraphSpec, trajectory: Trajectory) -> GoldenCase:
    """Write one recorded call of a graph, from the middle of the drawing, into `folder`/golden/case; return its record.
    A reader that has no proof part runs the graph on it."""
    case = middle_call(spec.name, trajectory)

    def write(kind: str, tensors: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, ArrayRef]:
        home = f"golden/case/{spec.name}/{kind}"
        return {each.name: write_array(folder, f"{home}/{each.name}.bin", arrays[each.name]) for each in tensors}

    return GoldenCase(
        label=case.label,
        inputs=write("inputs", spec.inputs, case.inputs),
        outputs=write("outputs", spec.outputs, case.outputs),
    )


def middle_call(graph: str, trajectory: Trajectory) -> Case:
    """The recorded call of a graph that its golden case is made of."""
    calls = list(cases(graph, trajectory))
    return calls[len(calls) // 2]


def read_golden(bundle: Bundle) -> list[Trajectory]:
    """The trajectories that the bundle was judged by. Raises UserError where its proof part is not installed,
    ProofError where it holds none, or not all arrays."""
    require_proof(bundle)
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
