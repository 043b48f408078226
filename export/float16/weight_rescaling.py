"""A component whose inner results are scaled by powers of two, with the same outputs.

A convolution whose result is scaled by 2^-e has 2^-e times its weights, and a normalisation of that result has 2^-2e
times its epsilon. In float32 both are exact, as long as nothing falls below its smallest normal number; a file that
stores float16 may lose the last bits of small weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from pocketdiffusion.export.checkpoints.tensor import scaled
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.float16.scale_propagation import Dataflow, follow
from pocketdiffusion.quantize.exponents import exponents
from pocketdiffusion.runtime.runner import Array


@dataclass(frozen=True)
class Rescale:
    """Exponents of powers of two: of the weights that they multiply, by name, and of the epsilons of norms, by module.
    `results` has, by module, the e of a result that becomes 2^-e times as large."""

    weights: Mapping[str, int]
    epsilons: Mapping[str, int]
    results: Mapping[str, int] = field(default_factory=dict)


def plan(part: Component, rewrites: Sequence[str], inputs: Iterable[Mapping[str, Array]]) -> Rescale:
    """Return the powers of two that bring every result for `inputs` into float16, and the squares inside of
    normalisations.

    Raise ProofError, naming the result, if only another arithmetic can."""
    return _plan(follow(part, rewrites, inputs))


def _plan(data: Dataflow) -> Rescale:
    held = exponents(data.flow)
    weights: dict[str, int] = {}
    results: dict[str, int] = {}
    for each in data.affine:
        taken, given = held.get(each.source, 0), held.get(each.result, 0)
        weights[each.weight] = taken - given
        results[each.weight.rpartition(".")[0]] = given
        if each.bias is not None:
            weights[each.bias] = -given
    return Rescale(
        {name: power for name, power in weights.items() if power},
        {norm.path: -2 * held[norm.source] for norm in data.norms if norm.source in held},
        {module: exponent for module, exponent in results.items() if exponent},
    )


def rescale(part: Component, powers: Rescale) -> Component:
    """Return the component with its weights and epsilons multiplied by these powers of two."""
    weights = {name: scaled(tensor, powers.weights.get(name, 0)) for name, tensor in part.weights.items()}
    build = partial(_build, part.build, powers.epsilons)
    return replace(part, build=build, weights=weights, exponents=powers.results)


def _build(build: Callable[[], nn.Module], epsilons: Mapping[str, int]) -> nn.Module:
    module = build()
    for path, power in epsilons.items():
        norm = module.get_submodule(path)
        assert isinstance(norm, nn.GroupNorm | nn.LayerNorm)
        norm.eps *= 2.0**power
    return module
