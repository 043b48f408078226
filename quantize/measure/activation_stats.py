"""Activation statistics: histograms of the inputs and outputs of a model's operators, collected while it draws.

Each value is counted when it is computed, so that memory does not grow with the number of prompts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketdiffusion.quantize.observers import METHOD, Histogram, choose_range
from pocketdiffusion.quantize.qparams import Ranges
from pocketdiffusion.runtime.errors import ProofError

Histograms = Mapping[str, Histogram]  # by the weight of the operator


@dataclass(frozen=True)
class ActivationStatistics:
    """Histograms of the inputs and outputs of operators, by component and by the name of the operator's weight."""

    inputs: Mapping[str, Histograms]
    outputs: Mapping[str, Histograms]

    def ranges(self, component: str, bits: int) -> Ranges:
        """Return the value ranges of a component's operators for signed integers of `bits`."""
        inputs, outputs = (
            {name: choose_range(histogram, METHOD, bits) for name, histogram in found[component].items()}
            for found in (self.inputs, self.outputs)
        )
        return Ranges(inputs, outputs)

    def watch(self, component: str, module: nn.Module) -> None:
        """Register hooks on `module` that count the inputs and outputs of its operators at each call. The call
        raises ProofError, with the weight's name, if a value is not finite."""
        for name in self.inputs[component]:
            owner = module.get_submodule(name.rpartition(".")[0])
            count = partial(_count, name, self.inputs[component][name], self.outputs[component][name])
            owner.register_forward_hook(count)


def empty_statistics(operators: Mapping[str, Iterable[str]], *, counting: bool) -> ActivationStatistics:
    """Return empty statistics for the `operators` of each component, named by their weights. Without `counting` they
    have the least and the largest values only."""
    inputs, outputs = (
        {component: {name: Histogram(counting) for name in names} for component, names in operators.items()}
        for _ in range(2)
    )
    return ActivationStatistics(inputs, outputs)


def pack(statistics: ActivationStatistics) -> dict[str, NDArray[np.float64]]:
    """Return the histograms as two arrays: "counts", float64 [N, BINS], and "limits", float64 [N, 3], the reach, the
    least and the largest value. The order is the one of the operators, inputs first."""
    histograms = list(_histograms(statistics))
    return {
        "counts": np.stack([histogram.counts for histogram in histograms]),
        "limits": np.array([(histogram.reach, histogram.low, histogram.high) for histogram in histograms]),
    }


def fill(statistics: ActivationStatistics, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Set empty statistics of the same operators to what `pack` returned. Raise KeyError or ValueError if `arrays` does
    not have one histogram for each."""
    histograms = zip(_histograms(statistics), arrays["counts"], arrays["limits"], strict=True)
    for histogram, counts, (reach, low, high) in histograms:
        histogram.counts = counts
        histogram.reach, histogram.low, histogram.high = float(reach), float(low), float(high)


def _histograms(statistics: ActivationStatistics) -> Iterator[Histogram]:
    for side in (statistics.inputs, statistics.outputs):
        for histograms in side.values():
            yield from histograms.values()


def check_finite(weight: str, x: Tensor) -> None:
    """Raise ProofError unless all values of `x`, an input or output of the original's operator with this weight, are
    finite."""
    if not x.isfinite().all():
        raise not_finite(weight)


def not_finite(weight: str) -> ProofError:
    """Return the error on an input or output of the original's operator with this weight that is not finite."""
    return ProofError(f"the original computes values that are not finite at {weight}: download it again")


def _count(
    weight: str, inputs: Histogram, outputs: Histogram, owner: nn.Module, arguments: tuple[Tensor, ...], result: Any
) -> None:
    for histogram, x in ((inputs, arguments[0]), (outputs, result)):
        try:
            histogram.add(x.numpy())
        except ValueError:
            raise not_finite(weight) from None
