"""Recorded trajectories in a bundle: raw arrays below golden/NUMBER, and one PNG each for people."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.runtime.bundle.arrays import read_array, write_array
from pocketdiffusion.runtime.bundle.bundle import Bundle, require_proof
from pocketdiffusion.runtime.bundle.golden_records import GoldenCase, RecordedGraph, RecordedTensor
from pocketdiffusion.runtime.bundle.manifest import Trajectory as Recorded
from pocketdiffusion.runtime.bundle.tiling import find_tiling
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.program import DECODE, PREVIEW, Program, graphs_of, text_to_image
from pocketdiffusion.runtime.record import ArrayRef
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import ARRAYS, FACTS, UNDIVIDED, Case, Trajectory, cases, labels_of

Read = Callable[[Path, ArrayRef], Array]  # opens an array below a folder


class GoldenWriter:
    """Writes arrays below a folder, equal ones once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[tuple[bytes, str], ArrayRef] = {}

    def write(self, path: str, array: Array) -> ArrayRef:
        """Write an array and return its record. If an earlier file has the same bytes, the record names that file
        instead."""
        key = hashlib.sha256(array.tobytes()).digest(), array.dtype.name
        if key not in self._written:
            self._written[key] = write_array(self.folder, path, array)
        return self._written[key].model_copy(update={"shape": array.shape})

    def tensor(self, path: str, arrays: Sequence[Array]) -> RecordedTensor:
        """Write the distinct values of `arrays` to one file, in the order of their first occurrence, and return the
        record."""
        places: dict[bytes, int] = {}
        distinct: list[Array] = []
        calls = []
        for array in arrays:
            key = array.tobytes()
            if key not in places:
                places[key] = len(distinct)
                distinct.append(array)
            calls.append(places[key])
        return RecordedTensor(values=self.write(path, np.stack(distinct)), calls=tuple(calls))


def write_golden(folder: Path, number: int, trajectory: Trajectory) -> Recorded:
    """Write every array of `trajectory` below `folder`/golden/`number`. Return the manifest's record of it."""
    writer, home = GoldenWriter(folder), f"golden/{number}"
    names = ARRAYS if trajectory.undivided is None else (*ARRAYS, UNDIVIDED)
    arrays = {name: writer.write(f"{home}/{name}.bin", getattr(trajectory, name)) for name in names}
    graphs = {graph: _write_graph(writer, f"{home}/{graph}", cases) for graph, cases in trajectory.calls.items()}
    write_png(folder / f"{home}.png", trajectory.picture, {})
    facts = {name: getattr(trajectory, name) for name in FACTS}
    return Recorded(**facts, image=f"{home}.png", arrays=arrays, graphs=graphs)


def _write_graph(writer: GoldenWriter, path: str, cases: Sequence[Case]) -> RecordedGraph:
    return RecordedGraph(
        halves=tuple(case.half for case in cases),  # type: ignore[misc]  # pydantic checks them
        steps=tuple(case.step for case in cases),
        inputs={
            name: writer.tensor(f"{path}.in.{name}.bin", [c.inputs[name] for c in cases]) for name in cases[0].inputs
        },
        outputs={
            name: writer.tensor(f"{path}.out.{name}.bin", [c.outputs[name] for c in cases]) for name in cases[0].outputs
        },
    )


def write_case(folder: Path, spec: GraphSpec, trajectory: Trajectory) -> GoldenCase:
    """Write one recorded call of a graph, from the middle of the drawing, into `folder`/golden/case, and return its
    record. A reader without the proof part runs the graph on it."""
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
    """Return the recorded call in the middle of the drawing, which becomes the golden case of a graph."""
    calls = list(cases(graph, trajectory))
    return calls[len(calls) // 2]


def read_golden(bundle: Bundle, read: Read = read_array) -> list[Trajectory]:
    """Return the trajectories that the bundle was judged by. `read` opens their arrays. Raise UserError if its proof
    part is not installed, and ProofError if it has none, or if arrays or calls are missing."""
    require_proof(bundle)
    trajectories = []
    stages = text_to_image(bundle.manifest.program)
    tiling = find_tiling(bundle.manifest.latents, bundle.manifest.vae)
    expected = ARRAYS if tiling is None else (*ARRAYS, UNDIVIDED)
    for number, recorded in enumerate(bundle.manifest.golden):
        if missing := set(expected) - set(recorded.arrays):
            raise ProofError(f"{bundle.folder}: recording {number} has no array {min(missing)}: export the model again")
        drawn = (graph for name, s in stages.items() if name != PREVIEW for graph in graphs_of(s))
        if missing := {graph for graph in drawn if not (graph in recorded.graphs and recorded.graphs[graph].halves)}:
            raise ProofError(
                f"{bundle.folder}: recording {number} has no call of {min(missing)}: export the model again"
            )
        tiles = 1 if tiling is None else len(tiling.places)
        for graph in graphs_of(stages[DECODE]):
            if (count := len(recorded.graphs[graph].halves)) != tiles:
                raise ProofError(
                    f"{bundle.folder}: recording {number} has {count} calls of {graph}, and the picture is {tiles} by "
                    "the tiles of the pipeline file: export the model again"
                )
        found = read_trajectory(bundle.folder, number, recorded, bundle.manifest.program, read)
        trajectories.append(replace(found, tiling=tiling))
    if not trajectories:
        raise ProofError(f"{bundle.folder} has no recordings to verify against: export the model again")
    return trajectories


def read_trajectory(
    folder: Path,
    number: int,
    recorded: Recorded,
    program: Program,
    read: Read = read_array,
) -> Trajectory:
    """Return the trajectory that `write_golden` wrote as number `number` below `folder`, without its tiling. `read`
    opens its arrays. Raise ProofError if arrays or calls do not fit."""
    fields: dict[str, Any] = {name: getattr(recorded, name) for name in FACTS}
    names = (name for name in (*ARRAYS, UNDIVIDED) if name in recorded.arrays)
    fields |= {name: read(folder, recorded.arrays[name]) for name in names}
    calls = {
        graph: tuple(_read_graph(folder, f"recording {number}: {graph}", recorded.prompt, each, read))
        for graph, each in recorded.graphs.items()
    }
    return Trajectory(program=program, calls=calls, **fields)


def _read_graph(folder: Path, what: str, prompt: str, recorded: RecordedGraph, read: Read) -> list[Case]:
    def read_all(tensors: dict[str, RecordedTensor]) -> dict[str, list[Array]]:
        return {name: _read_tensor(folder, f"{what}.{name}", tensor, count, read) for name, tensor in tensors.items()}

    count = len(recorded.halves)
    if len(recorded.steps) != count:
        raise ProofError(f"{folder}: {what} has {count} halves and {len(recorded.steps)} steps: export the model again")
    inputs, outputs = read_all(recorded.inputs), read_all(recorded.outputs)
    positions: list[tuple[str, int | None]] = list(zip(recorded.halves, recorded.steps, strict=True))
    labels = labels_of(prompt, positions)
    return [
        Case(
            labels[call],
            half,
            step,
            {name: arrays[call] for name, arrays in inputs.items()},
            {name: arrays[call] for name, arrays in outputs.items()},
        )
        for call, (half, step) in enumerate(positions)
    ]


def _read_tensor(folder: Path, what: str, tensor: RecordedTensor, count: int, read: Read) -> list[Array]:
    values = read(folder, tensor.values)
    if len(tensor.calls) != count or max(tensor.calls, default=-1) >= len(values):
        raise ProofError(f"{folder}: {what} does not name one of its values for each call: export the model again")
    return [values[call] for call in tensor.calls]
