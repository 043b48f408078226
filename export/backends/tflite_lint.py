"""What a TFLite file may hold so that phones take it, on their GPU as well. LiteRT on a CPU runs much more than this.

rank at most 4              GPU delegates have no fifth axis
no int64                    neither have they that; litert-torch makes int32 of it, if it is asked to
no BROADCAST_TO             refused by LiteRT's GPU delegate
no CUSTOM, no STABLEHLO_*   an operator that only some builds have
no CAST, TRANSPOSE of a     work on weights at every call, and a weight that is computed is refused by the GPU
  constant
DEQUANTIZE of constants     the mark of a weight that is stored in float16, which delegates fold
no operand without value    neither an input of the graph, nor a constant, nor computed: a weight that got lost
Two operators of text encoders are for the CPU alone, since LiteRT's GPU delegate refuses them: GATHER_ND, and
EMBEDDING_LOOKUP in a table that is stored in float16. A graph that has one says that its unit is the CPU.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends.tflite_file import TYPES, data_of, operands, operator_name, read_model
from pocketdiffusion.runtime.errors import ProofError

HIGHEST_RANK = 4
ON_CPU = {"EMBEDDING_LOOKUP", "GATHER_ND"}
_REFUSED = ("BROADCAST_TO", "CUSTOM")


def lint(path: Path) -> dict[str, int]:
    """Counts the file's operators. Raises ProofError for what a phone does not take, naming operator and tensor."""
    model = read_model(path)
    counts: Counter[str] = Counter()
    for graph in model.subgraphs:
        made_by = {int(index): operator for operator in graph.operators for index in operator.outputs}
        for index, tensor in enumerate(graph.tensors):
            maker = f" of {operator_name(model, made_by[index])}" if index in made_by else ""
            for problem in _tensor_problems(tensor):
                raise ProofError(f"{path.name}: tensor {_name(tensor)}{maker} {problem}")
        for operator in graph.operators:
            name = operator_name(model, operator)
            counts[name] += 1
            for problem in _operator_problems(model, graph, name, operator, known={*map(int, graph.inputs), *made_by}):
                result = _name(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else "nothing"
                raise ProofError(f"{path.name}: {name}, which makes {result}, {problem}")
    return dict(sorted(counts.items()))


def _tensor_problems(tensor: Any) -> Iterator[str]:
    rank = 0 if tensor.shape is None else len(tensor.shape)
    if rank > HIGHEST_RANK:
        yield f"has rank {rank}, where {HIGHEST_RANK} is the highest"
    if TYPES[tensor.type] in ("INT64", "UINT64", "FLOAT64"):
        yield f"is {TYPES[tensor.type].lower()}"


def _operator_problems(model: Any, graph: Any, name: str, operator: Any, known: set[int]) -> Iterator[str]:
    """`known` are the tensors that have a value without being constants."""
    if name in _REFUSED or name.startswith("STABLEHLO_"):
        yield "is an operator that phones do not have"
    for index in operands(operator):
        tensor = graph.tensors[index]
        if index not in known and data_of(model, tensor) is None and 0 not in tensor.shape:
            yield f"takes {_name(tensor)}, which has no value"
    sources = [graph.tensors[index] for index in operands(operator)[:1]]
    for source in sources:
        constant = data_of(model, source) is not None
        if name in ("CAST", "TRANSPOSE") and constant:
            yield f"works on the constant {_name(source)} at every call"
        if name == "DEQUANTIZE" and not constant:
            yield f"works on {_name(source)}, which is no constant"


def _name(tensor: Any) -> str:
    return tensor.name.decode() if tensor.name else "without a name"
