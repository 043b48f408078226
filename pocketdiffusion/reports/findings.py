"""What an export finds out about each graph beside its verdicts: for the report alone, no proof depends on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketdiffusion.export.backends.activation_choice import Choice
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.float16.activation_forms import FORMS, SIGMOIDS, FormError, choice, measure_forms
from pocketdiffusion.export.float16.audit import Audit, Fitted
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.rewrites import changes
from pocketdiffusion.export.trace import count_calls, count_kept
from pocketdiffusion.runtime.verify.gate import CHANGED, judge_runner
from pocketdiffusion.runtime.verify.metrics import ParityReport
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, keep_steps, probe, recorded_steps

FORM_CALLS = 4  # of each graph, spread over a trajectory: the first, the middle and the last step, and both halves


@dataclass(frozen=True)
class Findings:
    """Of one graph of one format.

    `changed`: modules that each rewrite changed. `kept`: those of its kind that it left, by reason. `changes`: what a
    rewrite changes in the model, where it does. `alone_db`: the PSNR of the component's worst output with that rewrite
    alone, in torch on one recorded step; left out where it changes nothing. `together_db`: with all of them, from the
    verdicts: "rewrites" is those that change nothing in the model, "changed" all. `calls_before`, `calls_after`: how
    often torch calls each ATen operator in one pass, without and with the rewrites; a rewrite's marker counts as one.
    `sigmoids_before`: sigmoids of the activations as the model is written; `sigmoids_after`: in the artifact, and
    `tanhs_after`. `choices`: the form of each kind of activation; `forms`: what all forms cost in float16. `audit`:
    that of ranges.
    """

    changed: Mapping[str, int]
    kept: Mapping[str, Mapping[str, int]]
    changes: Mapping[str, str]
    alone_db: Mapping[str, float]
    together_db: Mapping[str, float]
    calls_before: Mapping[str, int]
    calls_after: Mapping[str, int]
    sigmoids_before: int
    sigmoids_after: int
    tanhs_after: int
    choices: Mapping[str, Choice]
    forms: Sequence[FormError]
    audit: Audit | None


def find(fitted: Fitted, trajectory: Trajectory, rungs: Sequence[ParityReport], forms: Sequence[FormError]) -> Findings:
    """`rungs` are the verdicts below the artifact, `forms` is what `find_forms` gives for its component: that does not
    depend on the artifact."""
    part, artifact, graph = fitted.part, fitted.artifact, fitted.graph
    kinds = [kind for kind in part.sites if kind in FORMS]
    return Findings(
        changed=graph.rewrites,
        kept=count_kept(part, artifact.rewrites),
        changes=changes(name for name in artifact.rewrites if graph.rewrites[name]),
        alone_db={name: _alone_db(part, name, trajectory) for name, count in graph.rewrites.items() if count},
        together_db={
            rung: min(report.psnr_db for report in rungs if report.rung == rung)
            for rung in ("rewrites", CHANGED)
            if any(report.rung == rung for report in rungs)
        },
        calls_before=count_calls(part, ()),
        calls_after=count_calls(part, artifact.rewrites),
        sigmoids_before=sum(part.sites.get(kind, 0) for kind in ("silu", "quick_gelu")),
        sigmoids_after=sum(graph.ops.get(name, 0) for name in SIGMOIDS),
        tanhs_after=sum(count for name, count in graph.ops.items() if name.lower() == "tanh"),
        choices={kind: choice(artifact, kind) for kind in kinds},
        forms=forms,
        audit=fitted.audit,
    )


def find_forms(part: Component, trajectories: Sequence[Trajectory]) -> list[FormError]:
    """What each form of the component's activations costs in float16, on a few of its recorded calls."""
    if not any(kind in FORMS for kind in part.sites):
        return []
    calls = [case.inputs for case in cases(part.spec.name, probe(trajectories[0]))]
    return measure_forms(part, calls[:: max(1, len(calls) // FORM_CALLS)])


def _alone_db(part: Component, rewrite: str, trajectory: Trajectory) -> float:
    steps = recorded_steps(trajectory)
    middle = keep_steps(trajectory, {steps[len(steps) // 2]})
    runner = open_rewritten(part, [rewrite])
    reports = judge_runner(runner, [middle], format=None, rung=rewrite)
    return min(report.psnr_db for report in reports)
