"""The gate: every artifact is read from disk, run as users run it, and compared with the recorded original.

Teacher-forced, each graph and each stage gets the original's own inputs, so that its verdict blames only this part.
Then complete pictures are drawn, free-running, and compared with the original's."""

from collections.abc import Collection, Sequence

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.one_at_a_time import one_at_a_time
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.check import Check, Scope
from pocketdiffusion.runtime.verify.metrics import Comparison, Tally
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_pictures, judge_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory, cases
from pocketdiffusion.runtime.verify.stages import judge_stages
from pocketdiffusion.runtime.verify.tolerances import check_artifacts


def judge_graph(check: Check, runner: Runner, trajectories: Sequence[Trajectory]) -> list[Verdict]:
    """Run every recorded call of a graph; return one verdict on each of its outputs, named "graph.output"."""
    tallies = {tensor.name: Tally() for tensor in runner.spec.outputs}
    for trajectory in trajectories:
        for case in cases(runner.spec.name, trajectory):
            given = runner(case.inputs)
            expected = case.outputs if check.reference is None else check.reference(case.inputs)
            for name, tally in tallies.items():
                tally.add(Comparison(case.label, expected[name], given[name]))
    return [tally.verdict(f"{runner.spec.name}.{name}", check) for name, tally in tallies.items()]


def judge(
    bundle: Bundle,
    trajectories: Sequence[Trajectory],
    progress: Progress = lambda line: None,
    *,
    tight: Collection[str] = (),
) -> tuple[list[Verdict], list[PictureReport]]:
    """Judge everything. Return the verdicts and the pictures: verdicts on pictures come first, then on stages and on
    every graph of every format. All tolerances are decided before anything runs, from the graphs and the verdicts of
    the manifest (`tolerances.check_artifacts`). The pictures of the formats in `tight` are drawn with one graph
    open at a time."""
    checks = check_artifacts(bundle.manifest.graphs, bundle.manifest.verdicts)
    progress("stages")
    verdicts = judge_stages(bundle, trajectories)
    first: list[Verdict] = []
    pictures: list[PictureReport] = []
    for format, graphs in bundle.manifest.graphs.items():
        for name in graphs:
            progress(f"{format} {name}")
            verdicts += judge_graph(checks[format, name], open_graph(bundle, name, format), trajectories)
        progress(f"{format} pictures")
        opener = one_at_a_time(open_graph) if format in tight else open_graph
        drawn = list(draw_pictures(bundle, trajectories, format, opener))
        controls = [trajectory.controls for trajectory in trajectories]
        scope = Scope(format, arithmetic=graphs[model_graph(bundle.manifest.program)[0]].arithmetic)
        first += judge_pictures(drawn, graphs.values(), scope, controls)
        pictures += drawn
    return [*first, *verdicts], pictures
