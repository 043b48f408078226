"""The last step for a converter's file: reading, naming and writing."""

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from support.tflite_files import Value, write_tflite

from pocketdiffusion.export.backends.tflite.file import data_of, read_model
from pocketdiffusion.export.backends.tflite.finish import finish
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

WEIGHT = np.arange(4, dtype=np.float16)
SPEC = GraphSpec("part", (TensorSpec("x", (1, 4), "float32"),), (TensorSpec("y", (1, 4), "float32"),))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """y = x * weight, its weight behind the flatbuffer, as converters write what may be larger than 2 GB."""
    values = (Value("x"), Value("half", dtype="FLOAT16", data=WEIGHT), Value("wide"), Value("y"))
    path = tmp_path / "large.tflite"
    write_tflite(path, values, [("DEQUANTIZE", "half", "wide"), ("MUL", "x wide", "y")], "part")
    model, place = read_model(path), 4096
    (number,) = (n for n, buffer in enumerate(model.buffers) if buffer.data is not None)
    model.buffers[number] = schema.BufferT()
    model.buffers[number].offset, model.buffers[number].size = place, WEIGHT.nbytes
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    flat = bytes(builder.Output())
    path.write_bytes(flat + bytes(place - len(flat)) + WEIGHT.tobytes())
    return path


def test_a_buffer_behind_the_flatbuffer_is_read(large: Path) -> None:
    model = read_model(large)
    (half,) = (tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"half")
    data = data_of(model, half)
    assert data is not None and np.array_equal(data.view(np.float16), WEIGHT)


def test_it_lies_inside_when_finished(large: Path, tmp_path: Path) -> None:
    finish(read_model(large), tmp_path / "part.tflite", ())
    assert {buffer.offset for buffer in read_model(tmp_path / "part.tflite").buffers} == {0}
    x = np.ones((1, 4), np.float32)
    found = open_runner(tmp_path / "part.tflite", SPEC, threads=1)({"x": x})["y"]
    assert np.array_equal(found, x * WEIGHT)


def test_names_that_are_kept_and_tensors_that_are_not(large: Path, tmp_path: Path) -> None:
    """A constant that no operator takes is gone, one that is called as a weight keeps its name."""
    model = read_model(large)
    graph = model.subgraphs[0]
    unused = schema.TensorT()
    unused.name, unused.shape, unused.type, unused.buffer = b"unused", [4], schema.TensorType.FLOAT16, 1
    graph.tensors.insert(0, unused)
    for holder in (graph, *graph.operators):
        holder.inputs, holder.outputs = [i + 1 for i in holder.inputs], [i + 1 for i in holder.outputs]
    for entry in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        entry.tensorIndex += 1
    finish(model, tmp_path / "part.tflite", ("half", "wide"))
    names = [tensor.name for tensor in read_model(tmp_path / "part.tflite").subgraphs[0].tensors]
    assert names == [b"x", b"half", b"DEQUANTIZE_0", b"y"]


def test_a_file_cut_short(large: Path) -> None:
    large.write_bytes(large.read_bytes()[:-1])
    with pytest.raises(ProofError, match="large.tflite is truncated: it has .* bytes, and its buffer .* ends at"):
        read_model(large)
