"""What a bundle says of itself that no drawing of its proof would show to be wrong: compared file with file.

`verify` reads it before it runs anything, so that a reader in another language, which may depend on any of it, is not
the first to find out."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.pipeline import pick_stages
from pocketdiffusion.runtime.program import DENOISE, DRAWS, ENCODE_IMAGE, hosts_of, is_given, text_to_image
from pocketdiffusion.runtime.sampling.samplers import check_sampler, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.verify.vectors import ARRAYS, KINDS, VECTORS, Vector, find_array, read_vectors

PROMPTS = (
    "plain",
    "lower case",
    "contractions",
    "digits and signs",
    "white space",
    "composition",
    "scripts",
    "emoji",
    "no characters",
    "marks",
    "exclamation marks",
    "long prompts",
)  # what every tokenizer is asked; export/conformance/tokens.py has the prompts
OF_A_SAMPLER = {"start": 0.75, "run": 0.75, "whole_run": 0.0}  # of all counts: the original refuses a few
LEAST_DB = {
    "tokens": 200.0,
    "vocabulary": 200.0,
    "noise": 130.0,
    "start": 120.0,
    "run": 40.0,  # schedules that end in pure noise begin at 4096, of which float32 holds less
    "whole_run": 40.0,
    "guidance": 120.0,
    "decoder_scale": 120.0,
    "posterior": 110.0,
    "picture_to_array": 130.0,
    "array_to_picture": 200.0,
}  # what export/conformance gives each kind, or less


def check_contradictions(bundle: Bundle) -> None:
    """Raises ProofError, which names the file and the field, at the first thing that another file contradicts."""
    pick_stages(bundle)  # raises UserError where nothing can be drawn from a prompt
    for path, reason in _contradictions(bundle):
        raise ProofError(f"{bundle.folder / path}: {reason}: export the model again")


def _contradictions(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """The file, and what is wrong with it."""
    for format, graphs in bundle.manifest.graphs.items():
        pipeline = f"pipeline/{format}.json"
        for reason in (*_samplers(bundle), *_program(bundle)):
            yield pipeline, reason
        for name, graph in graphs.items():
            yield from ((pipeline, f"graphs.{name}.{reason}") for reason in _files(bundle, graph))
    yield from (("manifest.json", reason) for reason in _golden(bundle))
    yield from ((VECTORS, reason) for reason in _vectors(bundle))


def _samplers(bundle: Bundle) -> Iterator[str]:
    """The index of step tables beside the schedule, and the sampler that the original drew with."""
    manifest = bundle.manifest
    index, scheduler = manifest.step_tables.index, manifest.scheduler
    schedule = read_schedule(scheduler.config)
    for where, said in (("steps.prediction_type", index.prediction_type), ("model", manifest.model.prediction_type)):
        if said != schedule.prediction_type:
            yield f"{where} says {said}, and the schedule is of {schedule.prediction_type}"
    drawn = {trajectory.sampler for trajectory in manifest.golden}
    if drawn and drawn != {scheduler.default_sampler}:
        yield f"steps.default_sampler is {scheduler.default_sampler}, and the original drew by {', '.join(drawn)}"
    for name in index.samplers:
        check_sampler(name)
    for name in sampler_names():
        stored = index.samplers[name].rows if name in index.samplers else (0,) * index.most_steps
        for steps, rows in enumerate(stored, 1):
            try:
                wanted = len(step_table(name, schedule, steps).rows)
            except UserError:
                wanted = 0
            if rows != wanted:
                yield f"steps.samplers.{name} has {rows} rows for {steps} steps, where the sampler makes {wanted}"


def _program(bundle: Bundle) -> Iterator[str]:
    """Of image to image, and of samplers that scale their input, nothing is recorded."""
    program, graphs = bundle.manifest.program, next(iter(bundle.manifest.graphs.values()))
    if program.draws != DRAWS:  # of every pipeline of diffusers that redraws a picture
        yield f"program.draws is {', '.join(program.draws)}, and the originals draw {', '.join(DRAWS)}"
    stages = text_to_image(program)
    if "latents" in hosts_of(stages[DENOISE]):
        yield "program.stages: denoise is given latents, and the originals give it scaled_latents"
    called = {call.graph for stage in program.stages for call in stage.calls}
    if idle := graphs.keys() - called:
        yield f"program.stages: no stage calls {min(idle)}"
    for trajectory in bundle.manifest.golden:
        made = {call.graph for stage in stages.values() for call in stage.calls}
        if idle := trajectory.graphs.keys() - made:
            yield f"program.stages: no stage that can be run calls {min(idle)}, which the original called"
    if ENCODE_IMAGE in stages:
        for value in hosts_of(stages[ENCODE_IMAGE]):
            if not is_given(program, value):
                yield f"program.stages: encode_image is given {value}, and needs no more than a picture"


def _files(bundle: Bundle, graph: Graph) -> Iterator[str]:
    """A reader without a file system gives an engine the files of weights by name."""
    table, home = bundle.manifest.files, PurePosixPath(graph.path).parent
    for data in graph.external_data:
        if str(home / data.location) != data.path or data.path not in graph.files:
            yield f"external_data has {data.path} for {data.location}, which is none of its files beside {graph.path}"
    if graph.engine is None or graph.engine.name != "onnxruntime":
        return
    for path, entry in table.items():
        if entry.role == "runtime" and path.startswith(f"{graph.path}_") and path not in graph.files:
            yield f"files lacks {path}"
    if missing := {*graph.files} - {graph.path, *(data.path for data in graph.external_data)}:
        yield f"external_data lacks {min(missing)}"
    if graph.transposes and graph.file_spec is None:
        yield f"transposes names {min(graph.transposes)}, and the file's own tensors are those of spec"


def _golden(bundle: Bundle) -> Iterator[str]:
    """A case for each graph, with all its tensors."""
    for graphs in bundle.manifest.graphs.values():
        for name, graph in graphs.items():
            case = bundle.manifest.cases.get(name)
            if case is None:
                yield f"golden has no case of {name}"
                continue
            for kind, tensors, refs in (
                ("inputs", graph.spec.inputs, case.inputs),
                ("outputs", graph.spec.outputs, case.outputs),
            ):
                if refs.keys() != {tensor.name for tensor in tensors}:
                    yield f"golden.{name}.{kind} has not the tensors of its spec"
    if unknown := bundle.manifest.cases.keys() - next(iter(bundle.manifest.graphs.values())).keys():
        yield f"golden has a case of {min(unknown)}, which is no graph"


def _vectors(bundle: Bundle) -> Iterator[str]:
    """Vectors of every kind, tokenizer, sampler and count of steps, with the floors that they are written with."""
    if {*bundle.manifest.conformance} != {VECTORS, ARRAYS}:
        yield "conformance in manifest.json does not list it and its arrays"
        return
    vectors, raw = read_vectors(bundle.folder)
    names = [vector.name for vector in vectors.vectors]
    if twice := {name for name in names if names.count(name) > 1}:
        yield f"there are two vectors {min(twice)}"
    for vector in vectors.vectors:
        if vector.floor_db < LEAST_DB.get(vector.kind, 0.0):
            yield f"the floor of {vector.name} is {vector.floor_db}, where {LEAST_DB[vector.kind]} is the least"
    wanted: list[str] = []
    for number in range(1, len(bundle.manifest.tokenizers) + 1):
        suffix = "" if number == 1 else f", tokenizer {number}"
        wanted += [f"prompts, {name}{suffix}" for name in PROMPTS] + [f"vocabulary{suffix}"]
    if missing := [name for name in wanted if name not in names]:
        yield f"there is no vector {missing[0]!r}"
    kinds = {vector.kind for vector in vectors.vectors}
    if missing := [kind for kind in KINDS if kind not in kinds]:
        yield f"there is no vector of the kind {missing[0]}"
    for name, stored in bundle.manifest.step_tables.index.samplers.items():
        counts = {steps for steps, rows in enumerate(stored.rows, 1) if rows}
        for kind, share in OF_A_SAMPLER.items():
            met = counts & _counts(vectors.vectors, raw, kind, name)
            if counts and len(met) < max(1, share * len(counts)):
                yield f"vectors of the kind {kind} run {name} at {len(met)} of {len(counts)} counts of steps"


def _counts(vectors: tuple[Vector, ...], raw: bytes, kind: str, sampler: str) -> set[int]:
    """The counts of steps that vectors of a kind run a sampler at."""
    found: set[int] = set()
    for vector in vectors:
        for case in vector.cases if vector.kind == kind else ():
            if case.texts.get("sampler") == sampler and "steps" in case.arrays:
                found.update(np.asarray(find_array(raw, case.arrays["steps"])).tolist())
    return found
