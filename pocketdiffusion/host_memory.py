"""The memory that an export needs on this computer: predicted before it starts, and kept below a limit.

The limit is the user's, or the memory that is free. The prediction is `OWN_BYTES` and, for the graph that needs most,
`export_bytes_per_parameter` or `export_bytes_per_pixel` of the format's costs.json, whichever is more: the largest
anonymous memory while graphs of Stable Diffusion 1.5 were exported (benchmarks/RESULTS.md). Pages of files, which the
system can drop, do not count.
"""

from collections.abc import Mapping, Sequence
from math import ceil, inf, prod

from pocketdiffusion.estimates import read_costs
from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.component import Component
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.stage_memory import stage_peaks
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.memory import available_bytes
from pocketdiffusion.runtime.program import Program

OWN_BYTES = 1_000_000_000  # torch, the libraries, and the tensors of one call of the original
MOST_PARTS = 8  # of a UNet, in the advice


def find_limit(max_memory: int | None) -> tuple[float, str]:
    """Return the bytes that an export may use, and in words where this number is from: `max_memory`, or else the free
    memory of this computer; infinity where the system does not tell it."""
    if max_memory is not None:
        return max_memory, "--max-memory allows"
    free = available_bytes()
    return inf if free is None else free, "this computer has free"


def check_host_memory(parts: Sequence[Component], artifacts: Sequence[Artifact], max_memory: int | None) -> None:
    """Raise UserError, with what fits, if an export of `parts` to the formats of `artifacts` needs more memory than
    `find_limit` says. Formats whose costs were not measured are not checked."""
    limit, words = find_limit(max_memory)
    for format in dict.fromkeys(artifact.format for artifact in artifacts):
        needs = {part.spec.name: predict_bytes(part, format) or 0 for part in parts}
        beyond = [part for part in parts if needs[part.spec.name] > limit]
        if not beyond:
            continue
        worst = max(beyond, key=lambda part: (part.split is None, needs[part.spec.name]))  # what no split can help
        size = needs[worst.spec.name]
        raise UserError(
            f"an export to {format} needs about {size / 1e9:.1f} GB of memory for {worst.spec.name}, and {words} "
            f"{limit / 1e9:.1f} GB: {_advise(worst, size, limit)}"
        )


def predict_bytes(part: Component, format: str) -> int | None:
    """Return the memory in bytes that an export of `part` to `format` needs; None if it was not measured."""
    costs = read_costs(format) or {}
    if "export_bytes_per_parameter" not in costs:
        return None
    weights = costs["export_bytes_per_parameter"] * count_parameters(part)
    return int(OWN_BYTES + max(weights, costs["export_bytes_per_pixel"] * count_pixels(part)))


def count_parameters(part: Component) -> int:
    """Return the number of weights of a component."""
    return sum(prod(tensor.shape) for tensor in part.weights.values())


def count_pixels(part: Component) -> int:
    """Return the pixels of a component's largest picture or latents: height times width of an input or output."""
    shapes = [tensor.shape for tensor in (*part.spec.inputs, *part.spec.outputs) if len(tensor.shape) == 4]
    return max((prod(int(size) for size in shape[2:]) for shape in shapes), default=0)


def formats_one_at_a_time(
    program: Program, graphs: Mapping[str, Mapping[str, Graph]], max_memory: int | None
) -> list[str]:
    """Return the formats whose pictures are drawn with one graph open at a time, since all graphs of a stage do not fit
    the limit."""
    limit, _ = find_limit(max_memory)
    found = []
    for format, named in graphs.items():
        known = [peak for peak in stage_peaks(program, named, low_memory=False).values() if peak is not None]
        if OWN_BYTES + max(known, default=0) > limit:
            found.append(format)
    return found


def _advise(largest: Component, needs: int, limit: float) -> str:
    """Return the advice: the smallest number of graphs that fits, if the largest component can be split."""
    room = limit - OWN_BYTES
    parts = ceil((needs - OWN_BYTES) / room) + 1 if room > 0 else MOST_PARTS + 1  # parts are not equal
    if largest.split is None or parts > MOST_PARTS:
        return "use a computer with more memory"
    return f"give --split-unet {parts}, or use a computer with more memory"
