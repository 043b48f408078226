"""The gate on an installed runtime part, like the self-test of an app: each golden case and the picture of the original
in every format, and the stages that need no recorded drawing."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.golden_records import GoldenCase, OriginalPicture
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.image import read_picture
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.finite import find_not_finite
from pocketdiffusion.runtime.verify.metrics import Comparison, image_psnr_db, measure, ssim
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_again, picture_verdict
from pocketdiffusion.runtime.verify.stages import compare_characters
from pocketdiffusion.runtime.verify.step_tables import compare_step_tables
from pocketdiffusion.runtime.verify.tolerances import (
    EXACT_DB,
    SAMPLER_DB,
    check_artifacts,
    check_stage,
    picture_floors,
)

NOT_JUDGED = "the recorded drawings: tokens, noise, timesteps, steps, each call of each graph, and the other pictures"


def judge_runtime_part(bundle: Bundle, progress: Progress = lambda line: None) -> list[Verdict]:
    """Judge the runtime part of a bundle, except for its conformance vectors. Return the verdicts on the picture of the
    original in each format, then on stages, then on each output of each graph on its golden case.

    Floors are not moved by measurements of the proof part, such as rounding or rewrites that change the model. Raise
    ProofError if a case or the picture cannot be read."""
    checks = check_artifacts(bundle.manifest.graphs, ())
    progress("stages")
    pictures: list[Verdict] = []
    reports = [
        measure("characters", _characters(bundle), check_stage(EXACT_DB)),
        measure("step_tables", compare_step_tables(bundle), check_stage(SAMPLER_DB)),
    ]
    for format, graphs in bundle.manifest.graphs.items():
        for name in graphs:
            progress(f"{format} {name}")
            case = bundle.manifest.cases[name]
            reports += _judge_case(bundle, checks[format, name], open_graph(bundle, name, format), case)
        if bundle.manifest.picture is not None:
            progress(f"{format} picture")
            pictures.append(_judge_picture(bundle, format, bundle.manifest.picture))
    return [*pictures, *reports]


def _characters(bundle: Bundle) -> Iterator[Comparison]:
    for expected, given in compare_characters(bundle):
        yield Comparison("characters", expected.astype(np.float32), given.astype(np.float32))


def _judge_case(bundle: Bundle, check: Check, runner: Runner, case: GoldenCase) -> Iterator[Verdict]:
    given = runner({name: read_array(bundle.folder, ref) for name, ref in case.inputs.items()})
    for name, ref in case.outputs.items():
        expected = read_array(bundle.folder, ref).astype(np.float32)
        compared = Comparison(case.label, expected, given[name].astype(np.float32))
        yield measure(f"{runner.spec.name}.{name}", [compared], check)


def _judge_picture(bundle: Bundle, format: str, original: OriginalPicture) -> Verdict:
    """Return the verdict on the picture of the original drawn again, against the floor of the minimum."""
    graphs = bundle.manifest.graphs[format]
    _, decoded, picture = draw_again(bundle, original, format)
    height, width, _ = picture.shape
    path = bundle.folder / original.image
    try:
        expected = read_picture(path, width, height)
    except OSError as error:
        raise ProofError(f"{path} cannot be read as a picture ({error}): copy or export the bundle again") from error
    report = PictureReport(
        format, original.prompt, image_psnr_db(expected, picture), ssim(expected, picture), (), picture
    )
    not_finite = find_not_finite(f"picture of {original.prompt!r}", expected, decoded)
    arithmetic = graphs[model_graph(bundle.manifest.program)[0]].arithmetic
    (_, floor), storage = picture_floors([*graphs.values()], arithmetic)
    check = Check(Kind.PICTURES, Tolerance(floor), Scope(format, storage, arithmetic))
    return picture_verdict("picture", replace(report, not_finite=not_finite), check)
