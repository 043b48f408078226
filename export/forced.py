"""An artifact that computes in integers, layer by layer beside torch.

Where roundings follow one another, a last digit turns some, and these turn others: the outputs of two sound engines are
as far apart as each is from the original, and faults hide in that. So every layer in torch goes on with what the
artifact's own layers gave, and is compared with the artifact's by itself: sound ones differ by the few values that lie
at the middle between two integers, and by what the operators between two layers lose.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketdiffusion.export.layers import LayerRunner
from pocketdiffusion.export.rewritten import TorchRunner
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.parity import Comparison, ParityReport, measure
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.trajectory import Trajectory, cases

# Measured on the built-in model at the worst layer: 69 dB in ONNX, 61 in Core ML, which rounds to float16 on the way,
# 57 in LiteRT, where a single value is off by up to 3.3 % of the peak, one step of its int8.
FLOOR_DB = 45.0


class ForcedModule:
    """A torch module whose layers go on with other results than their own."""

    def __init__(self, runner: TorchRunner, layers: Sequence[str]) -> None:
        self.runner = runner
        self._given: Mapping[str, Array] = {}
        self._wanted: dict[str, Array] = {}
        for layer in layers:
            runner.module.get_submodule(layer).register_forward_hook(self._force(layer))

    def __call__(self, inputs: Mapping[str, Array], given: Mapping[str, Array]) -> dict[str, Array]:
        """What each layer, and then each output, would be, if the layers before gave what they have `given`."""
        self._given, self._wanted = given, {}
        outputs = self.runner(inputs)
        return {**self._wanted, **outputs}

    def _force(self, layer: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def force(owner: nn.Module, arguments: Any, result: Tensor) -> Tensor:
            self._wanted[layer] = result.numpy()
            return torch.from_numpy(self._given[layer].astype("float32").reshape(result.shape))

        return force


def judge_forced(
    reference: TorchRunner,
    layers: LayerRunner,
    trajectories: Sequence[Trajectory],
    *,
    plan: Plan,
    rung: str,
    storage: str,
    arithmetic: str,
) -> ParityReport:
    """The report of the layer or output that is furthest from torch. `reference` is the module as `plan` leaves it.

    Raises ProofError where the artifact does not name a layer that computes in integers, or gives one of another size.
    """
    graph, names = reference.spec.name, layers.names
    for weight, scheme in plan.schemes.items():
        if scheme.activation != "float" and weight.rpartition(".")[0] not in names:
            raise ProofError(f"{graph}: the {layers.format} artifact names no layer for {weight}")
    found: dict[str, list[Comparison]] = {}
    module = ForcedModule(reference, list(names))
    for trajectory in trajectories:
        for case in cases(graph, trajectory):
            for name, wanted, given in _compare(module, layers, case.inputs):
                found.setdefault(name, []).append(Comparison(case.label, wanted, given))
    reports = [
        measure(
            f"{graph}.{name.removeprefix(f'{graph}.')}",
            comparisons,
            rung=rung,
            floor=FLOOR_DB,
            format=layers.format,
            storage=storage,
            arithmetic=arithmetic,
        )
        for name, comparisons in found.items()
    ]
    return min(reports, key=lambda report: (report.passed, report.psnr_db))


def _compare(
    module: ForcedModule, layers: LayerRunner, inputs: Mapping[str, Array]
) -> Iterator[tuple[str, Array, Array]]:
    outputs, given = layers.run(inputs)
    try:
        wanted = module(inputs, given)
    except RuntimeError as error:  # torch's, of a reshape
        raise ProofError(f"{layers.format} {module.runner.spec.name}: a layer has another size: {error}") from None
    for name, array in wanted.items():
        yield name, array, outputs[name] if name in outputs else given[name].reshape(array.shape)
