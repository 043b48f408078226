"""The memory of the tensors of a graph that are alive at once, by the order in which its operators run."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One operator, with the names of its inputs (`reads`) and outputs (`writes`). One that `reshapes` allocates
    nothing: engines return its first input, read in another shape."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    reshapes: bool = False


def largest_live(
    operations: Iterable[Operation], sizes: Mapping[str, int], inputs: Collection[str], outputs: Collection[str]
) -> int:
    """Return the largest sum, in bytes, of the tensors that are alive while one operator runs.

    `sizes` has the bytes of each tensor that counts; names that are not in it, such as weights, count as 0. A tensor is
    alive from the operator that computes it to the last one that reads it or a reshaped view of it; `inputs` are alive
    during all operators, `outputs` to the end.
    """
    operations = list(operations)
    owner: dict[str, str] = {}
    for operation in operations:
        if operation.reshapes and operation.reads[0] in {*sizes, *owner}:
            owner |= dict.fromkeys(operation.writes, owner.get(operation.reads[0], operation.reads[0]))
    last: dict[str, int] = {}
    for number, operation in enumerate(operations):
        for name in (*operation.reads, *operation.writes):
            last[owner.get(name, name)] = number
    last |= dict.fromkeys((owner.get(name, name) for name in (*inputs, *outputs)), len(operations))
    alive = {name for name in inputs if name in sizes}
    largest = sum(sizes[name] for name in alive)
    for number, operation in enumerate(operations):
        alive |= {name for name in (owner.get(each, each) for each in operation.writes) if name in sizes}
        largest = max(largest, sum(sizes[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > number}
    return largest
