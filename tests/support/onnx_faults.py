"""Faults to inject into an ONNX bundle: in a weight, a graph, the manifest, the tokenizer. Most take the place as
arguments and give a `Fault`; the others are one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pocketdiffusion.export.reference.requests import PROOFS
from pocketdiffusion.runtime.bundle.manifest import Manifest
from pocketdiffusion.runtime.sampling.stored_tables import TableFile
from support.faults import Fault, after_output, before_input, edited, peak_of, shape_of, weight


def float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def one_weight(graph: str, name: str, value: float) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        with weight(folder, graph, name) as array:
            array.flat[array.size // 2] = value

    return fault


def one_element(graph: str, output: str, value: float | None = None, share: float = 0.0) -> Fault:
    """Adds `value`, or that `share` of the peak, to one element of an output."""

    def fault(folder: Path, manifest: Manifest) -> None:
        error = np.zeros(shape_of(manifest, graph, output), np.float32)
        error.flat[error.size // 3] = share * peak_of(manifest, f"{graph}.{output}") if value is None else value
        after_output(folder, graph, output, ("Add", [error], {}))

    return fault


def scaled_output(graph: str, output: str, factor: float) -> Fault:
    return lambda folder, manifest: after_output(folder, graph, output, ("Mul", [float32(factor)], {}))


def scaled_input(graph: str, name: str, factor: float) -> Fault:
    return lambda folder, manifest: before_input(folder, graph, name, ("Mul", [float32(factor)], {}))


def zero_weights(graph: str) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        data = folder / "onnx" / graph / "model.onnx_data"
        data.write_bytes(bytes(data.stat().st_size))

    return fault


def dropped_channel(graph: str, name: str) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        with weight(folder, graph, name) as array:
            array[2] = 0

    return fault


def dropped_output_channel(graph: str, output: str) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        kept = np.ones((1, shape_of(manifest, graph, output)[1], 1, 1), np.float32)
        kept[0, 1] = 0
        after_output(folder, graph, output, ("Mul", [kept], {}))

    return fault


def swapped_key_and_value(graph: str) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        with edited(folder, graph) as model:
            attention = next(node for node in model.graph.node if node.op_type == "MultiHeadAttention")
            attention.input[1], attention.input[2] = attention.input[2], attention.input[1]

    return fault


def turned_input(graph: str, name: str) -> Fault:
    """Height and width in each other's place."""
    return lambda folder, manifest: before_input(folder, graph, name, ("Transpose", [], {"perm": [0, 1, 3, 2]}))


def turned_output(graph: str, name: str) -> Fault:
    return lambda folder, manifest: after_output(folder, graph, name, ("Transpose", [], {"perm": [0, 1, 3, 2]}))


def channels_last(graph: str, name: str) -> Fault:
    """NHWC data under the shape of NCHW."""

    def fault(folder: Path, manifest: Manifest) -> None:
        shape = np.array(shape_of(manifest, graph, name), np.int64)
        after_output(folder, graph, name, ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Reshape", [shape], {}))

    return fault


def lost_causal_mask(folder: Path, manifest: Manifest) -> None:
    with edited(folder, "text_encoder") as model:
        masks = [a for node in model.graph.node for a in node.attribute if a.name == "unidirectional"]
        assert masks and all(mask.i == 1 for mask in masks)
        for mask in masks:
            mask.i = 0


def one_lost_causal_mask(folder: Path, manifest: Manifest) -> None:
    with edited(folder, "text_encoder") as model:
        [a for node in model.graph.node for a in node.attribute if a.name == "unidirectional"][-1].i = 0


def later_timestep(folder: Path, manifest: Manifest) -> None:
    before_input(folder, "unet", "timestep", ("Add", [float32(1)], {}))


def with_column(manifest: Manifest, sampler: str, column: str, change: Callable[[NDArray[Any]], None]) -> Manifest:
    """`change` gets the column's values, float32 [rows of 1 step, of 2 steps, ...]."""
    tables = manifest.step_tables
    stored = tables.index.samplers[sampler]
    values = np.frombuffer(tables.raw, "<f4").copy()
    first = stored.columns[column] // 4
    change(values[first : first + sum(stored.rows)])
    return manifest.model_copy(update={"step_tables": TableFile(tables.index, values.tobytes())})


def rows_of(manifest: Manifest, sampler: str, steps: int) -> slice:
    """Where the rows of a table lie in each column."""
    rows = manifest.step_tables.index.samplers[sampler].rows
    return slice(sum(rows[: steps - 1]), sum(rows[:steps]))


def shifted(manifest: Manifest, sampler: str, steps: int) -> Manifest:
    def change(timesteps: NDArray[Any]) -> None:
        timesteps[rows_of(manifest, sampler, steps)] -= 1

    return with_column(manifest, sampler, "timestep", change)


def shifted_used_table(folder: Path, manifest: Manifest) -> Manifest:
    """The table that a quick proof draws with."""
    return shifted(manifest, manifest.golden[0].sampler, PROOFS["quick"].requests[0].steps)


def shifted_other_table(folder: Path, manifest: Manifest) -> Manifest:
    assert manifest.golden[0].sampler != "euler_ancestral"
    return shifted(manifest, "euler_ancestral", 50)


def table_of_other_steps(folder: Path, manifest: Manifest) -> Manifest:
    """The first rows of 30 steps where those of 25 should be, by a sampler that no recorded generation used."""

    def change(timesteps: NDArray[Any]) -> None:
        timesteps[rows_of(manifest, "ddim", 25)] = timesteps[rows_of(manifest, "ddim", 30)][:25]

    return with_column(manifest, "ddim", "timestep", change)


def another_vae_scale(folder: Path, manifest: Manifest) -> Manifest:
    """Stable Diffusion's own, where this model has one of its own."""
    assert manifest.vae.scaling_factor != 0.18215
    return manifest.model_copy(update={"vae": manifest.vae.model_copy(update={"scaling_factor": 0.18215})})


def weights_anew(graph: str, blend: float) -> Fault:
    """Weights of another model with the same shapes: `blend` 1 is unrelated to this one, 0.02 is some training away."""

    def fault(folder: Path, manifest: Manifest) -> None:
        random = np.random.default_rng(1)
        model = onnx.load(folder / "onnx" / graph / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                with weight(folder, graph, tensor.name) as array:
                    other = random.standard_normal(array.shape, np.float32) * array.std(dtype=np.float64)
                    array[:] = (1 - blend) * array + blend * other

    return fault


def stale_merges(folder: Path, manifest: Manifest) -> None:
    """Another tokenizer's merges: the same pairs, ranked from the last to the first."""
    path = folder / "tokenizer/merges.txt"
    header, *pairs = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *reversed(pairs)]) + "\n", encoding="utf-8")


def swapped_weights(graph: str, one: str, other: str) -> Fault:
    def fault(folder: Path, manifest: Manifest) -> None:
        with weight(folder, graph, one) as a, weight(folder, graph, other) as b:
            a[:], b[:] = b.copy(), a.copy()

    return fault


def other_epsilon(operator: str) -> Fault:
    """1e-6 where 1e-5 is right."""

    def fault(folder: Path, manifest: Manifest) -> None:
        with edited(folder, "unet") as model:
            found = [a for n in model.graph.node if n.op_type == operator for a in n.attribute if a.name == "epsilon"]
            assert found and all(abs(a.f - 1e-5) < 1e-9 for a in found)
            for a in found:
                a.f = 1e-6

    return fault
