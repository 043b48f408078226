"""The gate on a runtime part alone, as an app's self-test goes: each golden case and the picture of the original, in
every format, beside the stages that rest on no recorded drawing."""

from collections.abc import Callable, Iterator

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle, read_array
from pocketdiffusion.runtime.bundle.manifest import GoldenCase, Graph, OriginalPicture
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.image import read_picture
from pocketdiffusion.runtime.pipeline import generate
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.finite import find_not_finite
from pocketdiffusion.runtime.verify.gate import EXACT_DB, SAMPLER_DB, compare_characters, picture_floors
from pocketdiffusion.runtime.verify.metrics import Comparison, ParityReport, floor_db, image_psnr_db, measure
from pocketdiffusion.runtime.verify.step_tables import compare_step_tables

NOT_JUDGED = "the recorded drawings: tokens, noise, timesteps, steps, each call of each graph, and the other pictures"


def judge_runtime_part(bundle: Bundle, say: Callable[[str], None] = lambda line: None) -> list[ParityReport]:
    """Everything that the runtime part of a bundle holds, but for its conformance vectors: the picture of the original
    first, then stages, then a report for each output of each graph, on its golden case.

    What the proof part alone knows moves no floor here: neither what rounding cost the weights, nor a rewrite that
    changes the model. Raises ProofError where a case or the picture cannot be read."""
    say("stages")
    pictures: list[ParityReport] = []
    reports = [
        measure("characters", _characters(bundle), rung="stage", floor=EXACT_DB),
        measure("step_tables", compare_step_tables(bundle), rung="stage", floor=SAMPLER_DB),
    ]
    for format, graphs in bundle.manifest.graphs.items():
        for name, graph in graphs.items():
            say(f"{format} {name}")
            reports += _judge_case(bundle, open_graph(bundle, name, format), format, graph, bundle.manifest.cases[name])
        if bundle.manifest.picture is not None:
            say(f"{format} picture")
            pictures.append(_judge_picture(bundle, format, bundle.manifest.picture))
    return [*pictures, *reports]


def _characters(bundle: Bundle) -> Iterator[Comparison]:
    for wanted, given in compare_characters(bundle):
        yield Comparison("characters", wanted.astype(np.float32), given.astype(np.float32))


def _judge_case(bundle: Bundle, runner: Runner, format: str, graph: Graph, case: GoldenCase) -> Iterator[ParityReport]:
    given = runner({name: read_array(bundle.folder, ref) for name, ref in case.inputs.items()})
    floor = floor_db(graph.storage, graph.arithmetic, recipe_db=graph.floor_db)
    for name, ref in case.outputs.items():
        wanted = read_array(bundle.folder, ref).astype(np.float32)
        yield measure(
            f"{graph.spec.name}.{name}",
            [Comparison(case.label, wanted, given[name].astype(np.float32))],
            rung=graph.recipe,
            floor=floor,
            format=format,
            storage=graph.storage,
            arithmetic=graph.arithmetic,
        )


def _judge_picture(bundle: Bundle, format: str, original: OriginalPicture) -> ParityReport:
    """The picture drawn again, against the least floor of one picture."""
    graphs = bundle.manifest.graphs[format]
    drafts = generate(
        bundle,
        original.prompt,
        negative_prompt=original.negative_prompt,
        seed=original.seed,
        steps=original.steps,
        guidance=original.guidance,
        sampler=original.sampler,
        format=format,
    )
    *_, last = drafts
    assert last.picture is not None and last.decoded is not None
    height, width, _ = last.picture.shape
    try:
        wanted = read_picture(bundle.folder / original.image, width, height)
    except OSError as error:
        path = bundle.folder / original.image
        raise ProofError(f"{path} is no picture ({error}): copy or export the bundle again") from error
    arithmetic = graphs[model_graph(bundle.manifest.program)[0]].arithmetic
    (_, floor), storage = picture_floors([*graphs.values()], arithmetic)
    psnr = image_psnr_db(wanted, last.picture)
    rmse = float(255 * 10 ** (-psnr / 20))
    not_finite = find_not_finite(f"picture of {original.prompt!r}", wanted, last.decoded)
    return ParityReport(
        subject="picture",
        rung="pictures",
        format=format,
        storage=storage,
        arithmetic=arithmetic,
        floor_db=floor,
        psnr_db=psnr,
        peak=255.0,
        max_abs=rmse,
        worst=(),
        worst_case=repr(original.prompt),
        relative=rmse / 255,
        finite=not_finite is None,
        cases=1,
        not_finite=not_finite,
    )
