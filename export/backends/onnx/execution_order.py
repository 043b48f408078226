"""The order in which onnxruntime executes the nodes of a graph.

It is not the order of the file: onnxruntime goes back from the nodes that nothing reads, to the inputs of each node
before the node itself, of several inputs first to the one whose node has the highest number (Graph::ReverseDFSFrom
with NodeCompare in onnxruntime/core/graph). The numbers are those of the file, and nodes that it replaces by its own
get higher ones, in the order of execution before that. Where several convolutions' results are copied back from blocks
of channels for one node, as for stripes that are joined, their numbers differ from session to session: this is one of
the possible orders.
"""

from collections.abc import Callable, Sequence

import onnx
import onnx_ir as ir


def execution_order(
    nodes: Sequence[onnx.NodeProto], replaced: Callable[[onnx.NodeProto], bool] = lambda node: False
) -> list[onnx.NodeProto]:
    """Return `nodes`, which are in the order of the file, in the order of execution. `replaced` is true of the nodes
    that onnxruntime replaces by its own."""
    order = _from_the_end(nodes, range(len(nodes)))
    if not any(map(replaced, nodes)):
        return [nodes[number] for number in order]
    numbers = [*range(len(nodes))]
    for place, number in enumerate(order):
        if replaced(nodes[number]):
            numbers[number] = len(nodes) + place
    return [nodes[number] for number in _from_the_end(nodes, numbers)]


def _from_the_end(nodes: Sequence[onnx.NodeProto], numbers: Sequence[int]) -> list[int]:
    """Return the places of `nodes` in the order of execution, if onnxruntime has given them these `numbers`."""
    producers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    before = [
        sorted({producers[name] for name in node.input if name in producers}, key=lambda place: numbers[place])
        for node in nodes
    ]
    read = {place for places in before for place in places}
    last = sorted((place for place in range(len(nodes)) if place not in read), key=lambda place: numbers[place])
    waiting = [(place, False) for place in last]
    seen: set[int] = set()
    order = []
    while waiting:
        place, leaving = waiting.pop()
        if leaving:
            order.append(place)
        elif place not in seen:
            seen.add(place)
            waiting.append((place, True))
            waiting += [(each, False) for each in before[place] if each not in seen]
    return order


def put_widened_weights_first(graph: ir.Graph) -> None:
    """Move each DequantizeLinear of constants to the beginning of the file, with the Cast that it reads, so that
    onnxruntime executes it just before the node that reads it. Behind the node that computes the reader's other input
    it would run before that and all nodes above it, and its float32 would be in memory meanwhile: for the shortcut of a
    residual block, and for the convolution that enlarges, during a whole stage of the UNet."""
    widening: dict[ir.Node, None] = {}
    for node in graph:
        if node.op_type == "DequantizeLinear" and _is_weight(node):
            casts = filter(None, (value.producer() for value in node.inputs if value is not None))
            widening |= dict.fromkeys([*casts, node])
    graph.remove(widening)
    graph.insert_before(graph[0], widening)


def put_widened_weights_before_readers(graph: ir.Graph) -> None:
    """Move each DequantizeLinear of a weight back to just before the first node that reads it, for a session that
    executes nodes in the order of the file."""
    places = {node: place for place, node in enumerate(graph)}
    for node in list(graph):
        readers = [use.node for value in node.outputs for use in value.uses()]
        if node.op_type == "DequantizeLinear" and _is_weight(node) and readers:
            graph.remove(node)
            graph.insert_before(min(readers, key=lambda reader: places[reader]), node)


def _is_weight(node: ir.Node) -> bool:
    """Return True if a DequantizeLinear reads constants, or Casts of constants."""
    before = [value.producer() for value in node.inputs if value is not None and not value.is_initializer()]
    return all(cast is not None and _reads_constants(cast) for cast in before)


def _reads_constants(node: ir.Node) -> bool:
    return all(value is None or value.is_initializer() for value in node.inputs)
