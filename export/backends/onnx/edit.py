"""Adding nodes and constants to an ONNX graph whose shapes are inferred; a node belongs to the module of an old one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"  # metadata of the exporter: the modules that a node belongs to
Shape = Sequence[Any]  # integers, and a symbol for an open batch


@dataclass(frozen=True)
class Edit:
    """Changes one graph. Values that it adds are numbered; equal constants are added once."""

    graph: ir.Graph
    constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)
    added: list[ir.Value] = field(default_factory=list)

    def value(self, dtype: ir.DataType, shape: Shape, name: str | None = None) -> ir.Value:
        """Return a new value that no node computes yet."""
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
        """Add a node of `anchor`'s module, before `anchor`, or as early as `behind` exists, so that several nodes can
        read it: after its producer, or first of all for an input of the graph. Return the node's first output."""
        noted = {SCOPES: anchor.metadata_props[SCOPES]} if SCOPES in anchor.metadata_props else {}
        node = ir.node(op, inputs, attributes or {}, domain=domain, outputs=[result, *more], metadata_props=noted)
        producer = behind.producer() if behind is not None else None
        if producer is not None:
            self.graph.insert_after(producer, node)
        else:
            self.graph.insert_before(anchor if behind is None else self.graph[0], node)
        return result

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """Return an initializer with the values of `array`, stored inside the model file."""
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
        """Return `x` reshaped to `shape`. `sizes` is the operand of Reshape: 0 keeps the dimension, -1 infers it."""
        assert x.dtype is not None
        wanted = self.constant(np.array(sizes, np.int64))
        return self.put(anchor, "Reshape", [x, wanted], self.value(x.dtype, shape), behind=behind)

    def restore_shape(self, anchor: ir.Node, x: ir.Value, like: ir.Value) -> ir.Value:
        """Return `x` reshaped to the shape of `like`, of which at most one size is open."""
        shape = shape_of(like)
        return self.reshape(anchor, x, [size if isinstance(size, int) else -1 for size in shape], shape)

    def replace(self, old: ir.Value, new: ir.Value, nodes: Sequence[ir.Node]) -> None:
        """Replace all uses of `old` by `new`, which also gets its name if it is an output of the graph. Remove each of
        `nodes`, the last of which computed `old`, whose outputs have no further use."""
        left = old.is_graph_output()
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if left:
            name, old.name = old.name, f"{old.name}/before"
            new.name = name
        for node in reversed(nodes):
            if not any(value.uses() for value in node.outputs):
                self.graph.remove(node, safe=True)


def shape_of(value: ir.Value) -> list[Any]:
    """Return the shape, which the exporter inferred for each value."""
    assert value.shape is not None, value.name
    return list(value.shape)


def rank(value: ir.Value) -> int:
    """Return the number of dimensions."""
    return len(shape_of(value))
