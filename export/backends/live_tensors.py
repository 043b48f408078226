"""How much memory the tensors of a graph take at once, by the order in which its operators are run."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One operator: the names of the tensors that it takes and makes. One that `reshapes` makes nothing new: its result
    is what it takes first, read in another shape, as engines have it."""

    takes: tuple[str, ...]
    makes: tuple[str, ...]
    reshapes: bool = False


def largest_live(
    operations: Iterable[Operation], sizes: Mapping[str, int], inputs: Collection[str], outputs: Collection[str]
) -> int:
    """Return the largest sum, in bytes, of the tensors that are alive while one operator runs.

    `sizes` has the bytes of each tensor that counts; names that are not in it, such as weights, take nothing. A tensor
    is alive from the operator that makes it to the last that takes it, or that takes a reshaped one of it; `inputs` all
    along, `outputs` to the end.
    """
    operations = list(operations)
    owner: dict[str, str] = {}
    for operation in operations:
        if operation.reshapes and operation.takes[0] in {*sizes, *owner}:
            owner |= dict.fromkeys(operation.makes, owner.get(operation.takes[0], operation.takes[0]))
    last: dict[str, int] = {}
    for number, operation in enumerate(operations):
        for name in (*operation.takes, *operation.makes):
            last[owner.get(name, name)] = number
    last |= dict.fromkeys((owner.get(name, name) for name in (*inputs, *outputs)), len(operations))
    alive = {name for name in inputs if name in sizes}
    largest = sum(sizes[name] for name in alive)
    for number, operation in enumerate(operations):
        alive |= {name for name in (owner.get(made, made) for made in operation.makes) if name in sizes}
        largest = max(largest, sum(sizes[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > number}
    return largest
