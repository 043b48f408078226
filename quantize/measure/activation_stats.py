"""Activation statistics: histograms of the inputs and outputs of a model's operators, counted while it draws.

Each value is counted when it is computed, so that memory does not grow with the number of prompts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from pocketdiffusion.quantize.observers import METHOD, Histogram, choose_range
from pocketdiffusion.quantize.qparams import Ranges
from pocketdiffusion.runtime.errors import ProofError

Histograms = Mapping[str, Histogram]  # by the weight of the operator


@dataclass(frozen=True)
class ActivationStatistics:
    """Histograms by component and by the weight of each operator: of its inputs and of its outputs."""

    inputs: Mapping[str, Histograms]
    outputs: Mapping[str, Histograms]

    def ranges(self, component: str, bits: int) -> Ranges:
        """Choose the range of signed integers of `bits` for each operator of a component."""
        inputs, outputs = (
            {name: choose_range(histogram, METHOD, bits) for name, histogram in found[component].items()}
            for found in (self.inputs, self.outputs)
        )
        return Ranges(inputs, outputs)

    def watch(self, component: str, module: nn.Module) -> None:
        """Hook into `module` so that each call of its operators is counted. The call raises ProofError, naming the
        weight, where a value is not finite."""
        for name in self.inputs[component]:
            owner = module.get_submodule(name.rpartition(".")[0])
            count = partial(_count, name, self.inputs[component][name], self.outputs[component][name])
            owner.register_forward_hook(count)


def empty_statistics(operators: Mapping[str, Iterable[str]]) -> ActivationStatistics:
    """Return statistics of nothing yet, for the `operators` of each component, named by their weights."""
    inputs, outputs = (
        {component: {name: Histogram() for name in names} for component, names in operators.items()} for _ in range(2)
    )
    return ActivationStatistics(inputs, outputs)


def check_finite(weight: str, x: Tensor) -> None:
    """Raise ProofError unless `x`, which the original computes at the operator of `weight`, is finite."""
    if not x.isfinite().all():
        raise ProofError(f"{weight}: the original computes values there that are not finite: download it again")


def _count(
    weight: str, inputs: Histogram, outputs: Histogram, owner: nn.Module, arguments: tuple[Tensor, ...], result: Any
) -> None:
    for histogram, x in ((inputs, arguments[0]), (outputs, result)):
        check_finite(weight, x)
        histogram.add(x.numpy())
