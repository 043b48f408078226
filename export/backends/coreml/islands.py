"""Find the outputs of an ML program that must stay float32, because they, or their inputs, overflow float16."""

from collections.abc import Sequence
from pathlib import Path

from pocketdiffusion.quantize.float16_range import Range
from pocketdiffusion.quantize.islands import islands
from pocketdiffusion.runtime.engines.mlprogram.program import read_program


def find_islands(path: Path, ranges: Sequence[Range]) -> list[str]:
    """Return the names of the outputs in the package `path` that stay float32, by `ranges`, their value ranges in
    float32 arithmetic. The names are the converter's, as before its conversion to float16."""
    operations = [
        ([result.name for result in operation.results], list(operation.uses))
        for operation in read_program(path).operations
    ]
    return [bare_name(name) for name in islands(operations, ranges)]


def bare_name(result: str) -> str:
    """Return the name that the converter gave the tensor `result` before its conversion to float16."""
    return result.removesuffix("_cast_fp16").removesuffix("_to_fp16")
