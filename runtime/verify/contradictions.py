"""Contradictions between the files of a bundle that no drawing of its proof would reveal.

`verify` searches them before it runs anything, because a reader in another language may depend on any of these
fields."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.file_table import PROOF
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.engines import find_engine
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import TensorSpec
from pocketdiffusion.runtime.pipeline import pick_stages
from pocketdiffusion.runtime.program import (
    DENOISE,
    DRAWS,
    ENCODE_IMAGE,
    PREVIEW,
    Concat,
    Program,
    Sum,
    host_value,
    host_values_of,
    is_provided,
    names_of,
    text_to_image,
)
from pocketdiffusion.runtime.record import ArrayRef
from pocketdiffusion.runtime.sampling.samplers import check_sampler, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.tokenizer import read_merges
from pocketdiffusion.runtime.verify.settings import (
    engine_faults,
    passed_over_faults,
    picture_faults,
    settings_faults,
)
from pocketdiffusion.runtime.verify.vector_check import vector_faults
from pocketdiffusion.runtime.verify.vectors import VECTORS

FULL_PICTURES = 4  # of the original, in a full proof (export/reference/requests.py)


def check_contradictions(bundle: Bundle) -> None:
    """Compare the files of a bundle with each other. Raise ProofError, which names the file and the field, at the first
    contradiction, and UserError if the program cannot draw from a prompt."""
    pick_stages(bundle)  # raises UserError if it cannot draw from a prompt
    for path, reason in _contradictions(bundle):
        raise ProofError(f"{bundle.folder / path}: {reason}: export the model again")


def _contradictions(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield the file and a sentence for each contradiction."""
    for format, graphs in bundle.manifest.graphs.items():
        pipeline = f"pipeline/{format}.json"
        for reason in (*_samplers(bundle), *_program(bundle), *settings_faults(bundle)):
            yield pipeline, reason
        for name, graph in graphs.items():
            reasons = (*_files(bundle, format, graph), *engine_faults(format, graph))
            yield from ((pipeline, f"graphs.{name}.{reason}") for reason in reasons)
    if (
        bundle.manifest.has_proof
        and bundle.manifest.proof_kind == "full"
        and len(bundle.manifest.golden) < FULL_PICTURES
    ):
        yield "manifest.json", f"proof.kind is full, and {PROOF} has fewer than {FULL_PICTURES} pictures"
    if bundle.manifest.picture is None:
        yield "manifest.json", "picture is null, and a reader without the proof part has no other picture to draw again"
    yield from (("manifest.json", reason) for reason in (*_golden(bundle), *passed_over_faults(bundle)))
    yield from picture_faults(bundle)
    yield from _merges(bundle)
    yield from ((VECTORS, reason) for reason in vector_faults(bundle))


def _samplers(bundle: Bundle) -> Iterator[str]:
    """Yield the differences between step tables and schedule, and a default sampler that the original did not draw
    with."""
    manifest = bundle.manifest
    index, scheduler = manifest.step_tables.index, manifest.scheduler
    schedule = read_schedule(scheduler.config)
    for where, said in (
        ("steps.prediction_type", index.prediction_type),
        ("model.prediction_type", manifest.model.prediction_type),
    ):
        if said != schedule.prediction_type:
            yield f"{where} is {said}, and the schedule predicts {schedule.prediction_type}"
    drawn = {each.sampler for each in (*manifest.golden, manifest.picture) if each is not None}
    if drawn and drawn != {scheduler.default_sampler}:
        yield f"steps.default_sampler is {scheduler.default_sampler}, and the original drew by {', '.join(drawn)}"
    for name in index.samplers:
        check_sampler(name)
    for name in sampler_names():
        stored = index.samplers[name].rows if name in index.samplers else (0,) * index.most_steps
        for steps, rows in enumerate(stored, 1):
            try:
                expected = len(step_table(name, schedule, steps).rows)
            except UserError:
                expected = 0
            if rows != expected:
                yield f"steps.samplers.{name} has {rows} rows for {steps} steps, and the sampler has {expected}"


def _program(bundle: Bundle) -> Iterator[str]:
    """Yield faults of the program that recordings cannot show: image to image and samplers that scale their input are
    not recorded."""
    program, graphs = bundle.manifest.program, next(iter(bundle.manifest.graphs.values()))
    if program.draws != DRAWS:  # the order in diffusers' pipelines for image to image
        yield f"program.draws is {', '.join(program.draws)}, and the originals draw {', '.join(DRAWS)}"
    stages = text_to_image(program)
    if "latents" in host_values_of(stages[DENOISE]):
        yield "program.stages: an input of denoise is latents, and the originals use scaled_latents"
    called = {call.graph for stage in program.stages for call in stage.calls}
    if idle := graphs.keys() - called:
        yield f"program.stages: no stage calls {min(idle)}"
    for trajectory in bundle.manifest.golden:
        made = {call.graph for stage in stages.values() for call in stage.calls}
        if idle := trajectory.graphs.keys() - made:
            yield f"program.stages: no stage that can be run calls {min(idle)}, which the original called"
    if ENCODE_IMAGE in stages:
        for value in host_values_of(stages[ENCODE_IMAGE]):
            if not is_provided(program, value):
                yield f"program.stages: encode_image uses {value}, and needs only a picture"
        if not any("picture" in call.inputs.values() for call in stages[ENCODE_IMAGE].calls):
            yield "program.stages: no graph of encode_image has the unchanged picture as its input"
    yield from _mixed_hosts(program)
    for stage in program.stages:  # image to image uses the recorded stages and encode_image
        judged = stages.get(stage.stage)
        if judged is not None and stage.calls != judged.calls and stage.stage != PREVIEW:
            when = f"for {', '.join(stage.when)}" if stage.when else "for all else"
            yield f"program.stages: the variant of {stage.stage} {when} is not covered by the recorded drawings"


def _mixed_hosts(program: Program) -> Iterator[str]:
    """Yield each sum or concat that has a host value twice, or only one host value."""
    for stage in program.stages:
        for call in stage.calls:
            for tensor, given in call.inputs.items():
                names = names_of(given) if isinstance(given, Sum | Concat) else ()
                for value in names:
                    if host_value(value) is not None and (len(names) == 1 or names.count(value) > 1):
                        where = f"program.stages: {stage.stage}: {call.graph}.{tensor}"
                        yield f"{where} is a sum or concat of {value} only, and the originals use it unchanged"


def _merges(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield lines of merges that other readers would parse differently: the tokenizers library ignores malformed
    ones."""
    for path in sorted({settings.merges for settings in bundle.manifest.tokenizers}):
        raw = (bundle.folder / path).read_bytes()
        try:
            merges = read_merges(raw)
        except ValueError as error:
            yield path, f"it is not UTF-8 ({error})"
            continue
        if odd := [merge for merge in merges if len(merge.split(" ")) != 2 or merge.split() != merge.split(" ")]:
            yield path, f"a line of it is {odd[0]!r}, which is not two pieces separated by one space"
        if not raw.endswith(b"\n"):
            yield path, "its last line does not end in a line feed"


def _files(bundle: Bundle, format: str, graph: Graph) -> Iterator[str]:
    """Yield faults in a graph's lists of files. A reader without a file system hands weight files to an engine by
    name."""
    table, home = bundle.manifest.files, PurePosixPath(graph.path).parent
    for data in graph.external_data:
        if str(home / data.location) != data.path or data.path not in graph.files:
            yield f"external_data has {data.path} for {data.location}, not among its files next to {graph.path}"
    for path in table:
        if path.startswith(f"{graph.path}/") and path not in graph.files:
            yield f"files does not list {path}"
    engine = find_engine(format)
    if engine is None or not engine.weights_in_own_files:
        return
    for path in table:
        if path.startswith(f"{graph.path}_") and path not in graph.files:
            yield f"files does not list {path}"
    if missing := {*graph.files} - {graph.path, *(data.path for data in graph.external_data)}:
        yield f"external_data does not list {min(missing)}"
    if graph.transposes and graph.file_spec is None:
        yield f"transposes names {min(graph.transposes)}, and the file's tensors are laid out as in spec"


def _fits(tensor: TensorSpec, ref: ArrayRef) -> bool:
    """Tell whether an array has the dtype of a tensor, and its size along each axis that is not free."""
    sizes = len(tensor.shape) == len(ref.shape) and all(
        isinstance(size, str) or size == found for size, found in zip(tensor.shape, ref.shape, strict=True)
    )
    return sizes and tensor.dtype == ref.dtype


def _golden(bundle: Bundle) -> Iterator[str]:
    """Yield graphs without a golden case, and cases whose tensors differ from the graph's."""
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
                    yield f"golden.{name}.{kind} does not have the tensors of its spec"
                for tensor in tensors:
                    ref = refs.get(tensor.name)
                    if ref is not None and not _fits(tensor, ref):
                        said, expected = f"{ref.dtype}{list(ref.shape)}", f"{tensor.dtype}{list(tensor.shape)}"
                        yield f"golden.{name}.{kind}.{tensor.name} is {said}, and its spec has {expected}"
    if unknown := bundle.manifest.cases.keys() - next(iter(bundle.manifest.graphs.values())).keys():
        yield f"golden has a case of {min(unknown)}, which is not a graph"
