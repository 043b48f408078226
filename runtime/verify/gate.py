"""The gate: every artifact re-read from disk, run as users run it, compared with the recorded original.

Teacher-forced, each graph and each stage gets the original's own inputs, so that its report blames it alone. Then whole
pictures are drawn, free-running, and compared with the original's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle, read_array
from pocketdiffusion.runtime.bundle.manifest import Graph, Verdict
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.engines import Opener, open_graph
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.pipeline import find_table, generate, open_tokenizers, unscale_latents
from pocketdiffusion.runtime.program import (
    DENOISE,
    ENCODE_PROMPT,
    HALVES,
    ZEROS,
    Stage,
    graphs_of,
    model_graph,
    names_of,
    text_to_image,
)
from pocketdiffusion.runtime.program_run import evaluate
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.sampling.step_table import advance
from pocketdiffusion.runtime.tokenizer import encode
from pocketdiffusion.runtime.verify.controls import medians
from pocketdiffusion.runtime.verify.finite import NotFinite, find_not_finite, largest
from pocketdiffusion.runtime.verify.golden_cases import compare_cases
from pocketdiffusion.runtime.verify.metrics import (
    Comparison,
    ParityReport,
    floor_db,
    image_psnr_db,
    measure,
    psnr_db,
    ssim,
)
from pocketdiffusion.runtime.verify.recording import (
    Trajectory,
    cases,
    guided_outputs,
    halves_of,
    recorded,
    recorded_once,
)
from pocketdiffusion.runtime.verify.step_tables import compare_step_tables

ROUNDING = "rounding"  # the rung that tells what storage in float16 costs, measured in torch
CHANGED = "changed"  # the rung that tells what a rewrite that changes the model costs it, measured in torch
EXACT_DB = 200.0  # one wrong token id, or one level of one pixel, is far below
NOISE_DB = 130.0  # 1e-6 on values up to about 4
SAMPLER_DB = 105.0  # float32 arithmetic in another order
PICTURE_FLOORS_DB = {
    "float32": (50.0, 50.0),
    "float16": (35.0, 25.0),
}  # by the lower of storage and arithmetic: median, minimum over prompts


@dataclass(frozen=True)
class PictureReport:
    """One prompt drawn free-running. `drift_db` is the PSNR of the latents after each call against the original's;
    `first_diverging` is the first call whose latents fall under 20 dB, 0 if none does. Where latents or the decoded
    picture hold NaN or infinity, on either side, `not_finite` says so, `psnr_db` is -inf and `ssim` 0: in 8 bits both
    sides would be black."""

    format: str
    prompt: str
    psnr_db: float
    ssim: float
    drift_db: tuple[float, ...]
    picture: Array
    not_finite: NotFinite | None = None

    @property
    def rmse(self) -> float:
        """In levels of 0..255."""
        return float(255 * 10 ** (-self.psnr_db / 20))

    @property
    def first_diverging(self) -> int:
        return next((n for n, db in enumerate(self.drift_db, 1) if db < 20), 0)


def judge_runner(
    runner: Runner,
    trajectories: Sequence[Trajectory],
    *,
    format: str | None,
    rung: str,
    storage: str = "float32",
    arithmetic: str = "float32",
    device: str = "host",
    rounding_db: Mapping[str, float] = {},
    changed_db: Mapping[str, float] = {},
    reference: Runner | None = None,
    floor: float | None = None,
    recipe_db: float | None = None,
) -> list[ParityReport]:
    """One report per output of the graph, named "graph.output". `format` is None for a torch module.

    `rounding_db` is what the storage alone costs, and `changed_db` what rewrites that change the model cost, by the
    name of the report, where that was measured. `reference` is what to compare with, on the recorded inputs, if that
    is not the original; `floor` (dB) is that of a rung which has one of its own,
    `recipe_db` that of a lossy recipe.
    """
    found: dict[str, list[Comparison]] = {tensor.name: [] for tensor in runner.spec.outputs}
    for trajectory in trajectories:
        for case in cases(runner.spec.name, trajectory):
            given = runner(case.inputs)
            wanted = case.outputs if reference is None else reference(case.inputs)
            for name, comparisons in found.items():
                comparisons.append(Comparison(case.label, wanted[name], given[name]))
    reports = []
    for name, comparisons in found.items():
        subject = f"{runner.spec.name}.{name}"
        moved = rounding_db.get(subject), changed_db.get(subject)
        by_precision = floor_db(storage, arithmetic, *moved, device, recipe_db) if floor is None else floor
        reports.append(
            measure(
                subject,
                comparisons,
                rung=rung,
                floor=by_precision,
                format=format,
                storage=storage,
                arithmetic=arithmetic,
                device=device,
            )
        )
    return reports


def judge_stages(bundle: Bundle, trajectories: Sequence[Trajectory]) -> list[ParityReport]:
    """The parts of the pipeline that are no graphs: tokenizer, characters, program, noise, step_tables, timesteps,
    sampler, vae_scale, image and golden_cases, which are those of the runtime part beside the bundle's own proof, where
    that is installed; those of which nothing was recorded are left out, such as the tokenizer of a model without
    prompts. What was recorded uses one step table; step_tables compares those of the bundle with what the samplers make
    of its schedule, each number relative to its size."""
    checks: tuple[tuple[str, float, Callable[[Bundle, Trajectory], Iterator[tuple[Array, Array]]]], ...] = (
        ("tokenizer", EXACT_DB, _tokenizer),
        ("characters", EXACT_DB, _characters),
        ("program", SAMPLER_DB, _program),
        ("noise", NOISE_DB, _noise),
        ("timesteps", SAMPLER_DB, _timesteps),
        ("sampler", SAMPLER_DB, _sampler),
        ("vae_scale", SAMPLER_DB, _vae_scale),
        ("image", EXACT_DB, _image),
    )
    reports = []
    for stage, floor, compare in checks:
        comparisons = [
            Comparison(f"{t.prompt!r}", reference.astype(np.float32), given.astype(np.float32))
            for t in trajectories
            for reference, given in compare(bundle, t)
        ]
        if comparisons:
            reports.append(measure(stage, comparisons, rung="stage", floor=floor))
    before = [report.subject for report in reports].index("noise") + 1
    reports.insert(before, measure("step_tables", list(compare_step_tables(bundle)), rung="stage", floor=SAMPLER_DB))
    if bundle.manifest.has_proof:
        reports.append(measure("golden_cases", compare_cases(bundle), rung="stage", floor=EXACT_DB))
    return reports


def _tokenizer(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    tokenizers = open_tokenizers(bundle)
    for half, prompt in zip(HALVES, (t.negative_prompt or "", t.prompt), strict=True):
        for number, tokenizer in enumerate(tokenizers, 1):
            tokens = encode(tokenizer, prompt)
            for value, given in (("tokens", tokens.ids), ("attention_mask", tokens.mask)):
                yield from ((wanted, given) for wanted in recorded(t, f"{value}/{number}", half).values())


def _program(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    """What the program makes of the values that the original's modules gave, beside what they were given."""
    found: dict[str, dict[str, Array]] = {half: {} for half in HALVES}  # outside of the step table
    for stage in text_to_image(bundle.manifest.program).values():
        for call in stage.calls:
            for case in t.calls.get(call.graph, ()):
                own = {**found[case.half or HALVES[1]], **_made_at(t, stage, case.step, case.half)}
                for name, given in call.inputs.items():
                    if name in case.inputs and own.keys() >= set(names_of(given)):
                        yield case.inputs[name], evaluate(given, own, partial(read_array, bundle.folder))
            for case in t.calls.get(call.graph, ()) if stage.stage != DENOISE else ():
                for half in (case.half,) if case.half else HALVES:
                    found[half] |= {value: case.outputs[tensor] for tensor, value in call.outputs.items()}
        if stage.stage == ENCODE_PROMPT:
            zeros = t.negative_prompt is None and bundle.manifest.program.absent_negative == ZEROS
            yield from _encoded(t, stage, zeros)
            if zeros:
                found["negative"] = {name: np.zeros_like(value) for name, value in found["positive"].items()}


def _encoded(t: Trajectory, stage: Stage, zeros: bool) -> Iterator[tuple[Array, Array]]:
    """How many graphs encoded the prompt of each half, beside how many the program calls: none for a negative prompt in
    whose place `zeros` stand."""
    for half in halves_of(t):
        count = sum(case.half == half for graph in graphs_of(stage) for case in t.calls.get(graph, ()))
        called = 0 if zeros and half == HALVES[0] else len(stage.calls)
        yield np.array([1 + count], np.float32), np.array([1 + called], np.float32)


def _made_at(t: Trajectory, stage: Stage, step: int | None, half: str) -> dict[str, Array]:
    """What the graphs of a stage of the step table gave at a step, for a half."""
    return {
        value: case.outputs[tensor]
        for call in stage.calls
        for case in t.calls.get(call.graph, ())
        if step is not None and case.step == step and case.half in (half, "")
        for tensor, value in call.outputs.items()
        if tensor in case.outputs
    }


def _characters(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    return compare_characters(bundle)


def compare_characters(bundle: Bundle) -> Iterator[tuple[Array, Array]]:
    """The bundle's tables of Unicode, for readers in other languages, beside ours."""
    for path in sorted({settings.characters for settings in bundle.manifest.tokenizers}):
        files = CHARACTERS, bundle.folder / path
        wanted, given = (np.frombuffer(file.read_bytes(), np.uint8) for file in files)
        yield wanted, given


def _noise(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    size = bundle.manifest.latents
    yield t.noise, TorchRandom(t.seed).randn((1, size.channels, size.height, size.width))


def _timesteps(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    rows = find_table(bundle, t.sampler, t.steps, 0).rows
    found = recorded(t, "timestep").values()
    if found:
        yield np.concatenate(list(found)), np.array([row.timestep for row in rows], np.float32)


def _sampler(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    """Each step from the original's latents and outputs: what its graphs would be given, and the latents after it."""
    table = find_table(bundle, t.sampler, t.steps, 0)
    given = {name: recorded(t, name) for name in ("latents", "scaled_latents")}
    outputs = guided_outputs(t)
    random = TorchRandom(t.seed)
    random.randn(t.noise.shape)
    yield t.latents[:1], t.noise * np.float32(table.init_noise_sigma)
    history: tuple[Array, ...] = ()
    for n, row in enumerate(table.rows[: len(outputs)]):
        latents = t.latents[n : n + 1]
        if n in given["latents"]:
            yield given["latents"][n], latents
        if n in given["scaled_latents"]:
            yield given["scaled_latents"][n], latents * np.float32(row.input_scale)
        noise = random.randn(t.noise.shape) if row.c else None
        following, history = advance(row, latents, outputs[n], history, noise)
        yield t.latents[n + 1 : n + 2], following


def _vae_scale(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    for given in recorded(t, "decoder_latents").values():
        yield given, unscale_latents(bundle, t.latents[-1:])


def _image(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
    yield t.picture, to_uint8(recorded_once(t, "decoded"))
    for picture in recorded(t, "picture").values():
        yield picture, from_uint8(t.picture)


def draw_pictures(
    bundle: Bundle, trajectories: Iterable[Trajectory], format: str, opener: Opener = open_graph
) -> Iterator[PictureReport]:
    """Each trajectory's prompt, drawn by the bundle alone, with the runners that `opener` opens."""
    for t in trajectories:
        drafts = list(
            generate(
                bundle,
                t.prompt,
                negative_prompt=t.negative_prompt,
                seed=t.seed,
                steps=t.steps,
                guidance=t.guidance,
                sampler=t.sampler,
                format=format,
                opener=opener,
            )
        )
        picture, decoded = drafts[-1].picture, drafts[-1].decoded
        assert picture is not None and decoded is not None
        yield compare_picture(format, t, [draft.latents for draft in drafts], decoded, picture)


def compare_picture(
    format: str, t: Trajectory, latents: Sequence[Array], decoded: Array, picture: Array
) -> PictureReport:
    """Compare a drawing with the recorded one: `latents` float32 [1, c, h, w] after each UNet call, `decoded` float32
    [1, 3, H, W] and `picture` uint8 [H, W, 3] of the other side."""
    peak = largest([t.latents])
    wanted = [each[None] for each in t.latents[1:]]
    drift = tuple(psnr_db(one, other, peak) for one, other in zip(wanted, latents, strict=True))
    places = [*enumerate(zip(wanted, latents, strict=True), 1), (0, (recorded_once(t, "decoded"), decoded))]
    found = (
        find_not_finite(f"latents after step {n} of {t.prompt!r}" if n else f"picture of {t.prompt!r}", one, other)
        for n, (one, other) in places
    )
    not_finite = next((each for each in found if each is not None), None)
    if not_finite is not None:
        return PictureReport(format, t.prompt, -inf, 0.0, drift, picture, not_finite)
    return PictureReport(format, t.prompt, image_psnr_db(t.picture, picture), ssim(t.picture, picture), drift, picture)


def judge_pictures(
    reports: Sequence[PictureReport],
    graphs: Iterable[Graph],
    arithmetic: str,
    device: str = "host",
    controls: Sequence[Mapping[str, float]] = (),
) -> list[ParityReport]:
    """The median and the minimum over the prompts, each against its floor: that of a lossy recipe where one of
    `graphs` has such, else by the least precise of their storage and `arithmetic`. The median of a recipe that is not
    lossy must besides be nearer than each of `controls`, the original's own of each prompt."""
    graphs = list(graphs)
    floors, storage = picture_floors(graphs, arithmetic)
    if all(graph.picture_floors_db is None for graph in graphs):
        floors = (max(floors[0], control_floor(controls)), floors[1])
    ranked = sorted(reports, key=lambda report: report.psnr_db)
    judged = []
    for name, report, floor in zip(
        ("median", "minimum"), (ranked[(len(ranked) - 1) // 2], ranked[0]), floors, strict=True
    ):
        judged.append(
            ParityReport(
                subject=f"pictures.{name}",
                rung="pictures",
                format=report.format,
                storage=storage,
                arithmetic=arithmetic,
                floor_db=floor,
                psnr_db=report.psnr_db,
                peak=255.0,
                max_abs=report.rmse,
                worst=(),
                worst_case=repr(report.prompt),
                relative=report.rmse / 255,
                finite=report.not_finite is None and all(db > -inf for db in report.drift_db),
                cases=len(reports),
                device=device,
                not_finite=report.not_finite,
            )
        )
    return judged


def control_floor(controls: Sequence[Mapping[str, float]]) -> float:
    """The PSNR (dB) that a median must have to be nearer than each control; -inf without any. A control that gives the
    very same picture, as a step less does in a model that does nothing, is passed over: nothing is nearer."""
    return max((db for db in medians(controls).values() if db < inf), default=-inf)


def picture_floors(graphs: Sequence[Graph], arithmetic: str) -> tuple[tuple[float, float], str]:
    """The floors of pictures, and the storage that they are for."""
    for graph in graphs:
        if graph.picture_floors_db is not None:
            return graph.picture_floors_db, graph.storage
    storage = "float16" if any(graph.storage == "float16" for graph in graphs) else "float32"
    return PICTURE_FLOORS_DB["float16" if "float16" in (storage, arithmetic) else "float32"], storage


def measured_db(bundle: Bundle, rung: str, format: str) -> dict[str, float]:
    """What a rung below the artifacts of `format` measured, by the name of the output."""
    return {v.subject: v.psnr_db for v in bundle.manifest.verdicts if (v.rung, v.format) == (rung, format)}


def judge(
    bundle: Bundle, trajectories: Sequence[Trajectory], say: Callable[[str], None] = lambda line: None
) -> tuple[list[ParityReport], list[PictureReport]]:
    """Everything: whole pictures, which come first, stages, every graph of every format. The manifest's verdicts of the
    rung "rounding" raise the floors of graphs that are stored in float16, those of the rung "changed" lower floors: of
    the graphs of their format, and of no other."""
    say("stages")
    reports = judge_stages(bundle, trajectories)
    first: list[ParityReport] = []
    pictures: list[PictureReport] = []
    for format, graphs in bundle.manifest.graphs.items():
        for name, graph in graphs.items():
            say(f"{format} {name}")
            reports += judge_runner(
                open_graph(bundle, name, format),
                trajectories,
                format=format,
                rung=graph.recipe,
                storage=graph.storage,
                arithmetic=graph.arithmetic,
                rounding_db=measured_db(bundle, ROUNDING, format),
                changed_db=measured_db(bundle, CHANGED, format),
                recipe_db=graph.floor_db,
            )
        say(f"{format} pictures")
        drawn = list(draw_pictures(bundle, trajectories, format))
        controls = [trajectory.controls for trajectory in trajectories]
        arithmetic = graphs[model_graph(bundle.manifest.program)[0]].arithmetic
        first += judge_pictures(drawn, graphs.values(), arithmetic, controls=controls)
        pictures += drawn
    return [*first, *reports], pictures


def record_verdict(report: ParityReport) -> Verdict:
    """The report as the manifest holds it: without its single cases, and without the side that is not finite."""
    kept = {name: value for name, value in vars(report).items() if name not in ("case_db", "not_finite")}
    return Verdict(**kept, max_abs_limit=report.max_abs_limit, passed=report.passed)
