"""Whether drawing with a bundle fits the phone's memory, and what would fit.

An app gets a share of the phone's memory (`APP_SHARE`). It compares with it the predicted peak and what its engine adds
(`FACTOR`, `OVERHEAD`: the guesses of the demo apps, MemoryEstimate in android_demo and ios_demo), first with the graphs
of a stage open at once, then with one graph at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketdiffusion.estimates import ExportPlan, PlannedPart, read_costs, storage_key
from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.targets import Target
from pocketdiffusion.quantize.recipe import Unmeasured
from pocketdiffusion.quantize.recipe_file import SEARCHED
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import Weight
from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest
from pocketdiffusion.runtime.bundle.stage_memory import peak_of
from pocketdiffusion.runtime.program import DECODE, DENOISE, ENCODE_PROMPT, graphs_of, text_to_image

# iPhones end an app at 6.1 GB of 12 GB, and at 2.9 to 4 GB of 6 GB: published by developers, not measured here. Android
# states no limit: an app gets what other apps and the system leave.
APP_SHARE = 0.5
FACTOR, OVERHEAD = 1.1, 64 * 2**20
ONE_AT_A_TIME = "one graph at a time (--low-memory)"
SPLITS = (2, 3, 4)
LARGEST_PART = 1.1  # of an equal share: cuts are between blocks
_WEIGHT = Weight((320, 320, 3, 3), "conv")  # of a kind that every recipe may compress


@dataclass(frozen=True)
class Need:
    """A graph's number of weights, and its memory as it is exported; None if it is not known."""

    parameters: int
    memory: Memory | None


@dataclass(frozen=True)
class Phone:
    """The phone's title and its memory in bytes."""

    title: str
    ram_bytes: int

    @property
    def limit(self) -> int:
        """Return the bytes that an app gets."""
        return int(APP_SHARE * self.ram_bytes)


Stages = Mapping[str, Sequence[Need]]  # the graphs of each stage by its name


def warn_of_memory(manifest: UnsealedManifest) -> list[str]:
    """Return a warning for each format of a bundle whose drawing does not fit its phone, with what fits. Phones that do
    not state their memory, and graphs whose memory is not known, give none."""
    if manifest.target.memory_mb is None:
        return []
    phone = Phone(manifest.target.title, manifest.target.memory_mb * 2**20)
    lines = []
    for format, graphs in manifest.graphs.items():
        stages = {
            stage_name: [Need(graphs[name].parameters, graphs[name].memory) for name in graphs_of(stage)]
            for stage_name, stage in text_to_image(manifest.program).items()
        }
        any_graph = next(iter(graphs.values()))
        artifact = Artifact(format, any_graph.profile, any_graph.recipe, any_graph.compute_unit, ())
        lines += warn_of_format(phone, artifact, stages)
    return lines


def warn_of_plan(plan: ExportPlan, target: Target) -> list[str]:
    """Return the warnings of `warn_of_memory` by the estimates of a plan, which count no activations but the
    decoder's."""
    if plan.ram_bytes is None:
        return []
    phone = Phone(target.title, plan.ram_bytes)
    return [
        line
        for artifact in target.artifacts
        for line in warn_of_format(phone, artifact, planned_stages(plan, artifact, target))
    ]


def planned_stages(plan: ExportPlan, artifact: Artifact, target: Target) -> dict[str, list[Need]]:
    """Return the estimated needs of the graphs of `artifact`'s format by stage, with the target's number of graphs for
    the UNet."""
    tensors = plan.tensor_bytes.get(artifact.format, 0)
    parts = {part.part: part for part in plan.parts if part.format == artifact.format}
    stages = {
        stage: [_planned_need(parts[name], tensors if stage == DECODE else 0) for name in names]
        for stage, names in zip((ENCODE_PROMPT, DENOISE, DECODE), plan.stages, strict=True)
        if names
    }
    if target.split_unet > 1:
        stages[DENOISE] = _split(stages[DENOISE][0], target.split_unet)
    return stages


def _planned_need(part: PlannedPart, tensors: int) -> Need:
    """Return the estimated need of a part whose activations have `tensors` bytes."""
    return Need(
        part.parameters,
        Memory(
            weights_bytes=part.memory_bytes,
            activations_bytes=tensors,
            loading_bytes=part.loading_bytes,
            counted="estimated",
        ),
    )


def warn_of_format(phone: Phone, artifact: Artifact, stages: Stages) -> list[str]:
    """Return one line if drawing with the graphs of `stages` does not fit `phone`. It proposes what fits: one graph at
    a time, or else another recipe or a denoiser of several graphs, or else a smaller size. Return [] if it fits or is
    not known."""
    usual, low = (app_needs(stages, low_memory=low) for low in (False, True))
    if usual is None or low is None or usual <= phone.limit:
        return []
    return [
        f"WARNING: drawing with the {artifact.format} graphs needs about {_mb(usual)} MB, {_mb(low)} MB with one graph "
        f"at a time, and an app gets about {_mb(phone.limit)} MB on {phone.title}: "
        f"{_propose(phone, artifact, stages, low)}"
    ]


def app_needs(stages: Stages, *, low_memory: bool) -> int | None:
    """Return the memory in bytes of an app that draws with these graphs; None if a number is not known."""
    peaks = [peak_of([need.memory for need in stage], low_memory=low_memory) for stage in stages.values()]
    known = [peak for peak in peaks if peak is not None]
    return int(FACTOR * max(known)) + OVERHEAD if len(known) == len(peaks) else None


def _propose(phone: Phone, artifact: Artifact, stages: Stages, low: int) -> str:
    if low <= phone.limit:
        return f"open {ONE_AT_A_TIME}"
    found = [*_propose_recipe(phone, artifact, stages), *_propose_split(phone, stages)]
    return f"export with {', or '.join(found)}" if found else "nothing else fits, export for a smaller --size"


def _propose_recipe(phone: Phone, artifact: Artifact, stages: Stages) -> list[str]:
    """Return the first recipe that fits, with the memory that it needs."""
    for recipe, weight_bytes in smaller_recipes(artifact).items():
        smaller = {name: [_stored_by(need, weight_bytes) for need in stage] for name, stage in stages.items()}
        for option, low_memory in (("", False), (f" and {ONE_AT_A_TIME}", True)):
            needs = app_needs(smaller, low_memory=low_memory)
            if needs is not None and needs <= phone.limit:
                return [f"--recipe {recipe}{option}, about {_mb(needs)} MB"]
    return []


def _propose_split(phone: Phone, stages: Stages) -> list[str]:
    """Return the smallest number of parts of the denoiser that fits, with the memory that it needs; nothing if the
    denoiser is several graphs already."""
    if len(stages[DENOISE]) != 1:
        return []
    for parts in SPLITS:
        needs = app_needs({**stages, DENOISE: _split(stages[DENOISE][0], parts)}, low_memory=True)
        if needs is not None and needs <= phone.limit:
            return [f"--split-unet {parts} and {ONE_AT_A_TIME}, about {_mb(needs)} MB"]
    return []


def _split(need: Need, parts: int) -> list[Need]:
    """Return the needs of the parts of a graph, each of the largest one's share, with all of its activations."""
    memory = need.memory
    if memory is not None:
        weights, loading = (
            None if size is None else int(LARGEST_PART * size / parts)
            for size in (memory.weights_bytes, memory.loading_bytes)
        )
        memory = memory.model_copy(update={"weights_bytes": weights, "loading_bytes": loading})
    return [Need(need.parameters // parts, memory)] * parts


def smaller_recipes(artifact: Artifact) -> Mapping[str, float]:
    """Return {recipe: bytes of a weight in memory} for the recipes that `artifact`'s format can hold and whose weights
    have fewer bytes in memory than its own recipe's, in the order of `list recipes`."""
    costs = (read_costs(artifact.format) or {}).get("weight_bytes", {})
    found = {}
    for name in dict.fromkeys((artifact.recipe, *recipe_names())):
        if name == SEARCHED or name.endswith(".json"):
            continue
        weights = {"weight": _WEIGHT}
        scheme = load_recipe(name).plan(weights, Unmeasured("denoiser", artifact.format, artifact.profile, weights))[
            "weight"
        ]
        size = costs.get(storage_key(scheme), costs.get(scheme.storage))
        if size is not None and find_backend(artifact.format).refusal(scheme, artifact.profile) is None:
            found[name] = size
    own = found.get(artifact.recipe, max(found.values(), default=0))
    return {name: size for name, size in found.items() if size < own}


def _stored_by(need: Need, weight_bytes: float) -> Need:
    """Return the need of a graph whose weights have `weight_bytes` each in memory."""
    if need.memory is None:
        return need
    size = int(need.parameters * weight_bytes)
    return Need(need.parameters, need.memory.model_copy(update={"weights_bytes": size, "loading_bytes": None}))


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"
