"""Faults in the files of a bundle, as a buggy exporter would write them, and sealed as it would seal them: nothing but
the judgement can tell."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.manifest import Manifest
from pocketdiffusion.runtime.bundle.sealing import seal

Fault = Callable[[Path, Manifest], Manifest | None]  # changes files, and returns the manifest if that is changed too


def inject(bundle: Bundle, fault: Fault, folder: Path) -> Bundle:
    """A copy of `bundle` in `folder` with the fault in it, sealed as if nothing had happened."""
    shutil.copytree(bundle.folder, folder)
    manifest = fault(folder, bundle.manifest) or bundle.manifest
    seal(folder, manifest)
    return open_bundle(folder)


@contextmanager
def edited(folder: Path, graph: str) -> Iterator[Any]:
    """The ModelProto of a graph, to be changed; its weights stay where they are."""
    path = folder / "onnx" / graph / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    yield model
    onnx.save(model, path)


@contextmanager
def weight(folder: Path, graph: str, name: str) -> Iterator[NDArray[Any]]:
    """One tensor of model.onnx_data, to be changed in the file. `name` is the end of the tensor's name."""
    path = folder / "onnx" / graph / "model.onnx"
    found = [t for t in onnx.load(path, load_external_data=False).graph.initializer if t.name.endswith(name)]
    assert len(found) == 1, f"{name} names {[t.name for t in found]}"
    place = {entry.key: entry.value for entry in found[0].external_data}
    array = np.memmap(
        path.with_name(place["location"]),
        dtype=helper.tensor_dtype_to_np_dtype(found[0].data_type),
        mode="r+",
        offset=int(place["offset"]),
        shape=tuple(found[0].dims),
    )
    yield array
    array.flush()


def before_input(folder: Path, graph: str, name: str, *steps: tuple[Any, ...]) -> None:
    """Puts nodes between the input `name` and all that read it. A step: an operator, its constants, its attributes."""
    with edited(folder, graph) as model:
        for node in model.graph.node:
            rename(node.input, name, f"{name}.faulty")
        chain(model, name, f"{name}.faulty", 0, *steps)


def after_output(folder: Path, graph: str, name: str, *steps: tuple[Any, ...]) -> None:
    """Puts nodes between whatever makes the output `name` and the output."""
    with edited(folder, graph) as model:
        for node in model.graph.node:
            rename(node.input, name, f"{name}.sound")
            rename(node.output, name, f"{name}.sound")
        chain(model, f"{name}.sound", name, len(model.graph.node), *steps)


def rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def chain(model: Any, source: str, end: str, place: int, *steps: tuple[Any, ...]) -> None:
    for number, (operator, constants, attributes) in enumerate(steps):
        target = end if number == len(steps) - 1 else f"{end}.{number}"
        names = [f"{target}.constant.{i}" for i in range(len(constants))]
        model.graph.initializer.extend(
            numpy_helper.from_array(array, n) for array, n in zip(constants, names, strict=True)
        )
        node = helper.make_node(operator, [source, *names], [target], name=f"faulty/{target}", **attributes)
        model.graph.node.insert(place + number, node)
        source = target


def shape_of(manifest: Manifest, graph: str, name: str) -> tuple[int, ...]:
    """Of an output; the shapes of phones are closed."""
    spec = manifest.graphs["onnx"][graph].spec
    return next(tuple(int(size) for size in t.shape) for t in spec.outputs if t.name == name)


def peak_of(manifest: Manifest, subject: str) -> float:
    """The largest recorded value of an output, as the gate found it."""
    return max(v.peak for v in manifest.verdicts if v.subject == subject and v.format)
