"""The operators that onnxruntime executes on x86: convolutions compute in blocks of channels, and tensors are copied
to that layout and back.

A convolution with a constant float weight reads and writes blocks. Its input is copied unless it is in blocks already,
its result is copied back for each operator that computes in another layout, and both copies are alive as long as they
are read. Additions of two results in blocks, and enlargements of one, stay in blocks. This is what the graph that
onnxruntime 1.32 saves (`optimized_model_filepath`) has; convolutions on Arm have no blocks, and less memory.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from pocketdiffusion.export.backends.live_tensors import Operation

BLOCK = 8  # channels: 16 with AVX-512, which changes no size here, since fewer channels than a block are not copied
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_BLOCKS = "/blocks"  # the name of a tensor's copy in blocks ends with it
_EXPANDED = "/expanded"  # the name of the expanded input of the convolution that computes a tensor ends with it


@dataclass(frozen=True)
class Executed:
    """Operations in the order of execution, and the bytes of the copies that the file does not have."""

    operations: Sequence[Operation]
    copies: Mapping[str, int]


def executed(
    nodes: Sequence[onnx.NodeProto],
    channels: Mapping[str, int],
    sizes: Mapping[str, int],
    filters: Collection[str],
    expanded: Mapping[str, int],
) -> Executed:
    """Return what onnxruntime executes for `nodes`, which are in the order of execution. `channels`: of each tensor of
    four axes; `sizes`: bytes of each tensor; `filters`: constant float weights of convolutions; `expanded`: bytes to
    which a convolution without them expands its input, by its output."""
    operations: list[Operation] = []
    copies: dict[str, int] = {}
    plain: set[str] = set()  # tensors that were copied back
    made: set[str] = set()  # tensors that are computed in blocks

    def in_blocks(name: str) -> str:
        """Return the name of the tensor in blocks, which is copied unless it is there."""
        copy = name + _BLOCKS
        if copy not in copies:
            operations.append(Operation((name,), (copy,)))
            copies[copy] = sizes.get(name, 0)
        return copy

    def as_computed(name: str) -> str:
        """Return the name of the tensor as operators without blocks read it, after it is copied back."""
        if name in made and name not in plain:
            operations.append(Operation((name + _BLOCKS,), (name,)))
            plain.add(name)
        return name

    for node in nodes:
        reads, writes = list(filter(None, node.input)), tuple(filter(None, node.output))
        if node.op_type == "Conv" and reads[1] in filters:
            wide = channels.get(reads[0], 0) >= BLOCK
            first = in_blocks(reads[0]) if wide else as_computed(reads[0])
            reads = [first, *reads[1:]]
        elif not _stays(node, made):
            if expanded.get(writes[0]):
                copies[writes[0] + _EXPANDED] = expanded[writes[0]]
                writes = (*writes, writes[0] + _EXPANDED)  # which no operator reads
            operations.append(Operation(tuple(map(as_computed, reads)), writes, node.op_type in RESHAPES))
            continue
        else:
            reads = [name + _BLOCKS if name in made else name for name in reads]
        made |= {*writes}
        copies |= {name + _BLOCKS: sizes.get(name, 0) for name in writes}
        operations.append(Operation(tuple(reads), tuple(name + _BLOCKS for name in writes)))
    return Executed(operations, copies)


def copied_back(outputs: Sequence[str], found: Executed) -> Executed:
    """Return `found` with the outputs of the graph that are computed in blocks copied back at its end."""
    written = {name for operation in found.operations for name in operation.writes}
    late = [name for name in outputs if name not in written and name + _BLOCKS in written]
    return Executed([*found.operations, *(Operation((name + _BLOCKS,), (name,)) for name in late)], found.copies)


def _stays(node: onnx.NodeProto, made: Collection[str]) -> bool:
    """Return True if the operator computes in blocks: an addition of two such tensors, an enlargement of one."""
    if node.op_type == "Add":
        return all(name in made for name in node.input)
    return node.op_type == "Resize" and node.input[0] in made
