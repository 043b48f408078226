"""Search for the first layer of an artifact with an error: every layer's result is compared with the original's, for
the same inputs.

A graph gets the recorded inputs, and its layers run freely, so that the error of one layer continues in all that
follow. The layers to inspect are therefore the first one over a budget in the order of execution, and the one that adds
most."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Trajectory, cases

Layers = Callable[[Mapping[str, Array]], dict[str, Array]]  # the results of a graph's layers, by module


@dataclass(frozen=True)
class LayerError:
    """The errors of one layer. `by_step` has the relative error (norm of the difference / norm of the original) of each
    step, of the worse half; of a graph outside the steps, the error of each call, the negative half's first. It is
    infinite if a result is not finite or has another size. `calls` has the names of these steps or calls. `added` is
    the largest sqrt(error^2 - error of the layer before^2)."""

    graph: str
    module: str
    by_step: tuple[float, ...]
    added: float
    calls: tuple[str, ...] = ()

    @property
    def largest(self) -> float:
        return max(self.by_step)

    def first_over(self, budget: float) -> int | None:
        """Return the first step, from 1, at which the error is over `budget`."""
        return next((step for step, error in enumerate(self.by_step, 1) if not error <= budget), None)

    def call(self, step: int) -> str:
        """Return the name of step `step` (from 1) of `by_step`; "" for a graph that is called once."""
        return self.calls[step - 1] if self.calls else ""


def first_over(errors: Sequence[LayerError], budget: float) -> tuple[LayerError, int] | None:
    """Return the first layer whose error is over `budget`, and the step: graphs in their order, then the earliest step,
    then the first layer in the order of execution. None if there is none."""
    for graph in dict.fromkeys(error.graph for error in errors):
        over = [(step, error) for error in errors if error.graph == graph and (step := error.first_over(budget))]
        if over:
            step, error = min(over, key=lambda found: found[0])
            return error, step
    return None


class OriginalLayers:
    """The original module as `Layers`. Not for a module that a rewrite has changed."""

    def __init__(self, part: Component) -> None:
        self.spec, self.module = part.spec, load_module(part)
        self.results: dict[str, Array] = {}
        for name in weights_of(part):
            module = name.rpartition(".")[0]
            self.module.get_submodule(module).register_forward_hook(self._keep(module))

    def _keep(self, module: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(owner: nn.Module, arguments: Any, result: Any) -> None:
            self.results[module] = result.numpy()

        return keep

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.results = {}
        self.module(*(torch.from_numpy(inputs[tensor.name].copy()) for tensor in self.spec.inputs))
        return self.results


def compare_layers(graph: str, reference: Layers, candidate: Layers, trajectory: Trajectory) -> list[LayerError]:
    """Return the error of every layer that both sides have, in the candidate's order of execution, on all calls of one
    drawing."""
    steps: dict[str, list[dict[str, float]]] = {}  # errors of the calls of each step or prompt
    for case in cases(graph, trajectory):
        words = f"step {case.step + 1}" if case.step is not None else f"{case.half} prompt" if case.half else ""
        steps.setdefault(words, []).append(dict(_errors(reference(case.inputs), candidate(case.inputs))))
    found: list[LayerError] = []
    before = [0.0] * len(steps)
    for module in next(iter(steps.values()))[0]:
        by_step = [max(call[module] for call in step) for step in steps.values()]
        added = max(_added(now, earlier) for now, earlier in zip(by_step, before, strict=True))
        found.append(LayerError(graph, module, tuple(by_step), added, tuple(steps)))
        before = by_step
    return found


def _added(now: float, earlier: float) -> float:
    if now == inf:
        return 0.0 if earlier == inf else inf
    return sqrt(max(0.0, now * now - earlier * earlier))


def _errors(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> Iterator[tuple[str, float]]:
    for module, given in candidate.items():
        if module not in reference:
            continue
        expected = reference[module].astype(np.float64).ravel()
        flat = given.astype(np.float64)
        if given.size != expected.size or not (np.isfinite(flat).all() and np.isfinite(expected).all()):
            yield module, inf
            continue
        norm = float(np.linalg.norm(expected))
        error = float(np.linalg.norm(flat.ravel() - expected))
        yield module, error / norm if norm else (inf if error else 0.0)
