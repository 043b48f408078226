"""Results of an ML program that stay float32, since they or what they are made of go beyond float16."""

from collections.abc import Sequence
from pathlib import Path

from pocketdiffusion.quantize.float16_range import Range
from pocketdiffusion.quantize.islands import islands
from pocketdiffusion.runtime.engines.mlprogram.program import read_program


def find_islands(path: Path, ranges: Sequence[Range]) -> list[str]:
    """Return the names, as the converter has them before results become float16, of the results of the package `path`
    that stay float32, by the ranges of its results in float32 arithmetic."""
    operations = [
        ([result.name for result in operation.results], list(operation.uses))
        for operation in read_program(path).operations
    ]
    return [bare_name(name) for name in islands(operations, ranges)]


def bare_name(result: str) -> str:
    """Return Core ML's name of a result before it became float16."""
    return result.removesuffix("_cast_fp16").removesuffix("_to_fp16")
