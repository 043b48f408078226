"""Measurements of an export on each graph, only for the report. No verdict depends on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pocketdiffusion.export.backends.activation_choice import Choice
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.float16.activation_forms import FORMS, SIGMOIDS, FormError, choice, measure_forms
from pocketdiffusion.export.float16.audit import Audit, EmittedGraph
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.rewrites import changes
from pocketdiffusion.export.trace import count_calls, count_kept
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.check import NONE, Check
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import (
    Trajectory,
    keep_steps,
    recorded_steps,
)

FORM_CALLS = 4  # calls of each graph: of the first, middle and last step, of both halves


@dataclass(frozen=True)
class Findings:
    """Measurements of one graph in one format.

    `changed`: {rewrite: number of modules that it changed}. `changes`: {rewrite: description}, for rewrites that are
    not exact. `together_db`: PSNR of the component's worst output, from the verdicts, with the exact rewrites
    ("rewrites") and with all ("changed"). `sigmoids_before`: number of sigmoids in the activation functions of the
    model. `sigmoids_after`, `tanhs_after`: numbers in the artifact. `choices`: the form of each kind of activation
    function. `audit`: value ranges in float16.

    Only in a full report: `kept`: {rewrite: {reason: number of modules that it did not change}}. `single_db`: PSNR of
    the component's worst output with only that rewrite, in torch on one recorded step. `calls_before`, `calls_after`:
    {ATen operator: calls} of one pass without and with the rewrites; a custom op counts as one call. `forms`: error of
    each form of an activation function in float16.
    """

    changed: Mapping[str, int]
    changes: Mapping[str, str]
    together_db: Mapping[str, float]
    sigmoids_before: int
    sigmoids_after: int
    tanhs_after: int
    choices: Mapping[str, Choice]
    audit: Audit | None
    kept: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    single_db: Mapping[str, float] = field(default_factory=dict)
    calls_before: Mapping[str, int] = field(default_factory=dict)
    calls_after: Mapping[str, int] = field(default_factory=dict)
    forms: Sequence[FormError] = ()


def measure_findings(
    fitted: EmittedGraph,
    rungs: Sequence[Verdict],
    few: Sequence[Trajectory],
    report: str,
    progress: Progress,
) -> Findings:
    """Return the findings on an emitted graph whose `rungs` are judged. For `report` "full", measure the rest on the
    first of `few`, the drawings that the rungs were judged on."""
    part, artifact, graph = fitted.part, fitted.artifact, fitted.graph
    kinds = [kind for kind in part.sites if kind in FORMS]
    found = Findings(
        changed=graph.rewrites,
        changes=changes(name for name in artifact.rewrites if graph.rewrites[name]),
        together_db={
            kind.value: min(verdict.psnr_db for verdict in rungs if verdict.kind == kind)
            for kind in (Kind.REWRITES, Kind.CHANGED)
            if any(verdict.kind == kind for verdict in rungs)
        },
        sigmoids_before=sum(part.sites.get(kind, 0) for kind in ("silu", "quick_gelu")),
        sigmoids_after=sum(graph.ops.get(name, 0) for name in SIGMOIDS),
        tanhs_after=sum(count for name, count in graph.ops.items() if name.lower() == "tanh"),
        choices={kind: choice(artifact, kind) for kind in kinds},
        audit=fitted.audit,
    )
    if report != "full":
        return found
    progress(f"measuring the rewrites of {part.spec.name}")
    return replace(
        found,
        kept=count_kept(part, artifact.rewrites),
        calls_before=count_calls(part, ()),
        calls_after=count_calls(part, artifact.rewrites),
        forms=find_forms(fitted.original, few[0]),
        single_db={name: _alone_db(part, name, few[0]) for name, count in graph.rewrites.items() if count},
    )


def find_forms(part: Component, trajectory: Trajectory) -> list[FormError]:
    """Return the error of each form of the component's activation functions in float16, on a few of its recorded
    calls."""
    if not any(kind in FORMS for kind in part.sites):
        return []
    calls = [case.inputs for case in trajectory.calls.get(part.spec.name, ())]
    return measure_forms(part, calls[:: max(1, len(calls) // FORM_CALLS)])


def _alone_db(part: Component, rewrite: str, trajectory: Trajectory) -> float:
    runner, steps = open_rewritten(part, [rewrite]), recorded_steps(trajectory)
    middle = keep_steps(trajectory, {steps[len(steps) // 2]})
    verdicts = judge_graph(Check(Kind.REWRITES, NONE), runner, [middle])
    return min(verdict.psnr_db for verdict in verdicts)
