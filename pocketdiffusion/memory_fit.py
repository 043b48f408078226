"""Whether drawing with a bundle fits the phone's memory, and what would fit.

An app gets a share of the phone's memory (`APP_SHARE`). It compares with it the predicted peak and what its engine adds
(`FACTOR`, `OVERHEAD`: the guesses of the demo apps, MemoryEstimate in android_demo and ios_demo), first with the graphs
of a stage open at once, then with one graph at a time.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pocketdiffusion.estimates import ExportPlan, PlannedPart, decoder_share, read_costs, storage_key
from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.targets import BLENDED, EXACT, NONE, STRIPED, VAE_TILES, Target
from pocketdiffusion.quantize.recipe import Unmeasured
from pocketdiffusion.quantize.recipe_file import SEARCHED
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme, Weight
from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.bundle.stage_memory import peak_of
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import DECODE, DENOISE, ENCODE_PROMPT, graphs_of, text_to_image

# iPhones end an app at 6.1 GB of 12 GB, and at 2.9 to 4 GB of 6 GB: published by developers, not measured here. Android
# states no limit: an app gets what other apps and the system leave.
APP_SHARE = 0.5
FACTOR, OVERHEAD = 1.1, 64 * 2**20
ONE_AT_A_TIME = "one graph at a time (--low-memory)"
SPLITS = (2, 3, 4)
LARGEST_PART = 1.1  # of an equal share: cuts are between blocks
_WEIGHTS = {"conv": Weight((320, 320, 3, 3), "conv"), "linear": Weight((320, 320), "linear")}  # of the denoiser


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
        lines += warn_of_format(phone, artifact, stages, bundle_shares(manifest, graphs))
    return lines


def warn_of_plan(plan: ExportPlan, target: Target) -> list[str]:
    """Return the warnings of `warn_of_memory` by the estimates of a plan, which count no activations but the
    decoder's."""
    if plan.ram_bytes is None:
        return []
    phone = Phone(target.title, plan.ram_bytes)
    shares = other_shares(plan.height // plan.scale, plan.width // plan.scale, plan.scale, target.vae_tiles)
    return [
        line
        for artifact in target.artifacts
        for line in warn_of_format(phone, artifact, planned_stages(plan, artifact, target), shares)
    ]


def bundle_shares(manifest: UnsealedManifest, graphs: Mapping[str, Graph]) -> dict[str, float]:
    """Return `other_shares` of a bundle with these graphs."""
    striped = any(STRIPED in graph.rewrites for graph in graphs.values())
    own = BLENDED if manifest.vae.tile_size is not None else EXACT if striped else NONE
    return other_shares(manifest.latents.height, manifest.latents.width, manifest.latents.scale, own)


def other_shares(down: int, across: int, scale: int, own: str) -> dict[str, float]:
    """Return, by its name in VAE_TILES, the tensors in memory of each way to decode that has less of them than the way
    `own`, as a share of the tensors of that. Blended tiles have the default size; small pictures have none."""
    shares = {}
    for way in VAE_TILES:
        with suppress(UserError):
            shares[way] = decoder_share(way, down, across, scale)
    return {way: share / shares[own] for way, share in shares.items() if share < shares.get(own, 0)}


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


def warn_of_format(phone: Phone, artifact: Artifact, stages: Stages, shares: Mapping[str, float]) -> list[str]:
    """Return one line if drawing with the graphs of `stages` does not fit `phone`. It proposes what fits: one graph at
    a time, or else another recipe, a denoiser of several graphs or another way to decode (`shares`, as
    `other_shares` returns them), or else a smaller size. Return [] if it fits or is not known."""
    usual, low = (app_needs(stages, low_memory=low) for low in (False, True))
    if usual is None or low is None or usual <= phone.limit:
        return []
    return [
        f"WARNING: drawing with the {artifact.format} graphs needs about {_mb(usual)} MB, {_mb(low)} MB with one graph "
        f"at a time, and an app gets about {_mb(phone.limit)} MB on {phone.title}: "
        f"{_propose(phone, artifact, stages, shares, low)}"
    ]


def app_needs(stages: Stages, *, low_memory: bool) -> int | None:
    """Return the memory in bytes of an app that draws with these graphs; None if a number is not known."""
    peaks = [peak_of([need.memory for need in stage], low_memory=low_memory) for stage in stages.values()]
    known = [peak for peak in peaks if peak is not None]
    return int(FACTOR * max(known)) + OVERHEAD if len(known) == len(peaks) else None


def _propose(phone: Phone, artifact: Artifact, stages: Stages, shares: Mapping[str, float], low: int) -> str:
    if low <= phone.limit:
        return f"open {ONE_AT_A_TIME}"
    recipes, ways = smaller_recipes(artifact), _ways_to_decode(artifact, shares)
    tiled = {way: _decoded_by(way, stages, shares) for way in ways}
    found = _propose_one(phone, recipes, stages)
    found += next(filter(None, (_first_fit(phone, f"--vae-tiles {way}", tiled[way]) for way in ways)), [])
    for way in ways:
        if found:
            break
        usable = {r: size for r, size in recipes.items() if way in _ways_to_decode(replace(artifact, recipe=r), shares)}
        found = [f"--vae-tiles {way} and {other}" for other in _propose_one(phone, usable, tiled[way])]
    return f"export with {', or '.join(found)}" if found else "nothing else fits, export for a smaller --size"


def _propose_one(phone: Phone, recipes: Mapping[str, float], stages: Stages) -> list[str]:
    """Return the first of `recipes` that fits, and the smallest number of parts of the denoiser that does."""
    return [*_propose_recipe(phone, recipes, stages), *_propose_split(phone, stages)]


def _propose_recipe(phone: Phone, recipes: Mapping[str, float], stages: Stages) -> list[str]:
    """Return the first recipe that fits, with the memory that it needs. `recipes`: bytes of a weight in memory."""
    for recipe, weight_bytes in recipes.items():
        smaller = {name: [_stored_by(need, weight_bytes) for need in stage] for name, stage in stages.items()}
        if found := _first_fit(phone, f"--recipe {recipe}", smaller):
            return found
    return []


def _first_fit(phone: Phone, option: str, stages: Stages) -> list[str]:
    """Return `option` and the memory that it needs, if drawing with `stages` fits with all graphs open, or else with
    one; [] if it does not fit."""
    for addition, low_memory in (("", False), (f" and {ONE_AT_A_TIME}", True)):
        needs = app_needs(stages, low_memory=low_memory)
        if needs is not None and needs <= phone.limit:
            return [f"{option}{addition}, about {_mb(needs)} MB"]
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


def _ways_to_decode(artifact: Artifact, shares: Mapping[str, float]) -> list[str]:
    """Return the other ways to decode, the exact one first; it is refused for recipes that compute in integers."""
    exact = [EXACT] if all(scheme.activation == "float" for scheme in _denoiser_schemes(artifact)) else []
    return [name for name in (*exact, BLENDED) if name in shares]


def _decoded_by(way: str, stages: Stages, shares: Mapping[str, float]) -> Stages:
    """Return the stages with another way to decode."""
    return {**stages, DECODE: [_with_activations(need, shares[way]) for need in stages[DECODE]]}


def _with_activations(need: Need, share: float) -> Need:
    """Return the need of a graph that has this share of its tensors in memory at once."""
    memory = need.memory
    if memory is None or memory.activations_bytes is None:
        return need
    size = int(share * memory.activations_bytes)
    return Need(need.parameters, memory.model_copy(update={"activations_bytes": size}))


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
    backend, found = find_backend(artifact.format), {}
    for name in dict.fromkeys((artifact.recipe, *recipe_names())):
        if name == SEARCHED or name.endswith(".json"):
            continue
        schemes = _denoiser_schemes(replace(artifact, recipe=name))
        sizes = [costs.get(storage_key(scheme), costs.get(scheme.storage)) for scheme in schemes]
        if None not in sizes and all(backend.refusal(scheme, artifact.profile) is None for scheme in schemes):
            found[name] = max(sizes)
    own = found.get(artifact.recipe, max(found.values(), default=0))
    return {name: size for name, size in found.items() if size < own}


def _denoiser_schemes(artifact: Artifact) -> list[Scheme]:
    """Return how the artifact's recipe stores the weight of a convolution and of a linear layer of the denoiser;
    float32 for recipes that were searched."""
    if artifact.recipe == SEARCHED or artifact.recipe.endswith(".json"):
        return [FLOAT32]
    recipe = load_recipe(artifact.recipe)
    return list(recipe.plan(_WEIGHTS, Unmeasured("denoiser", artifact.format, artifact.profile, _WEIGHTS)).values())


def _stored_by(need: Need, weight_bytes: float) -> Need:
    """Return the need of a graph whose weights have `weight_bytes` each in memory."""
    if need.memory is None:
        return need
    size = int(need.parameters * weight_bytes)
    return Need(need.parameters, need.memory.model_copy(update={"weights_bytes": size, "loading_bytes": None}))


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"
