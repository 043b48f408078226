"""What is put into an ONNX graph that was shaped already: nodes that belong to the module of another, and constants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of the modules that a node lies in
Shape = Sequence[Any]  # integers, and a symbol where the batch is open


@dataclass(frozen=True)
class Edit:
    """Of one graph. Values that it adds are numbered; of constants that are equal it adds one."""

    graph: ir.Graph
    constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)
    added: list[ir.Value] = field(default_factory=list)

    def value(self, dtype: ir.DataType, shape: Shape, name: str | None = None) -> ir.Value:
        """One that nothing gives yet."""
        value = ir.Value(
            name=name or f"integers_{len(self.added)}", type=ir.TensorType(dtype), shape=ir.Shape(list(shape))
        )
        self.added.append(value)
        return value

    def put(
        self,
        anchor: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        result: ir.Value,
        *more: ir.Value,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        behind: ir.Value | None = None,
    ) -> ir.Value:
        """A new node of `anchor`'s module, before `anchor`, or as early as there is `behind`, which several take.
        Returns its first result."""
        noted = {SCOPES: anchor.metadata_props[SCOPES]} if SCOPES in anchor.metadata_props else {}
        node = ir.node(op, inputs, attributes or {}, domain=domain, outputs=[result, *more], metadata_props=noted)
        producer = behind.producer() if behind is not None else None
        if producer is not None:
            self.graph.insert_after(producer, node)
        else:
            self.graph.insert_before(anchor if behind is None else self.graph[0], node)
        return result

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """An initializer inside the model file."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            value = self.value(ir.DataType.from_numpy(array.dtype), array.shape)
            value.const_value = ir.tensor(array, name=value.name)
            self.graph.initializers.add(value)
            self.constants[key] = value
        return self.constants[key]

    def reshape(
        self, anchor: ir.Node, x: ir.Value, sizes: Sequence[int], shape: Shape, behind: ir.Value | None = None
    ) -> ir.Value:
        """`x` as `shape`, which Reshape is told as `sizes`: 0 keeps the dimension of that place, -1 takes what is
        left."""
        assert x.dtype is not None
        wanted = self.constant(np.array(sizes, np.int64))
        return self.put(anchor, "Reshape", [x, wanted], self.value(x.dtype, shape), behind=behind)

    def restore_shape(self, anchor: ir.Node, x: ir.Value, like: ir.Value) -> ir.Value:
        """`x` in the shape of `like`, of which one size at most is open."""
        shape = shape_of(like)
        return self.reshape(anchor, x, [size if isinstance(size, int) else -1 for size in shape], shape)

    def replace(self, old: ir.Value, new: ir.Value, nodes: Sequence[ir.Node]) -> None:
        """Gives `new` to all that took `old`, and its name too where it left the graph. Removes `nodes`, the last of
        which gave `old`, as far as nothing else takes what they give."""
        left = old.is_graph_output()
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if left:
            name, old.name = old.name, f"{old.name}/before"
            new.name = name
        for node in reversed(nodes):
            if not any(value.uses() for value in node.outputs):
                self.graph.remove(node, safe=True)


def shape_of(value: ir.Value) -> list[Any]:
    """The shape, which the exporter knows of each value."""
    assert value.shape is not None, value.name
    return list(value.shape)


def rank(value: ir.Value) -> int:
    """The number of dimensions."""
    return len(shape_of(value))
