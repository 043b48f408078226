"""The sensitivity of a weight: the error of its component's outputs when only this weight is quantized.

It is measured on the calls that the original made while it drew. Each function with a parameter `folder` is one job for
a process with one thread, so that the numbers depend neither on the number of processes nor on their order. `folder`
has the files of `record_prompts`, one trajectory in each, which are read one at a time.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, log10
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pocketdiffusion.quantize.measure.activation_stats import check_finite
from pocketdiffusion.quantize.measure.fake_quantize import fake_quantize, round_input
from pocketdiffusion.quantize.qparams import BITS, ValueRange
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.scheme import Plan, Scheme, Weight
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.image import to_uint8
from pocketdiffusion.runtime.program import DECODE, ENCODE_IMAGE, Program, find_producer, model_graph
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.check import Check, Tolerance
from pocketdiffusion.runtime.verify.finite import find_not_finite
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import (
    Trajectory,
    cases,
    first_middle_last_steps,
    halves_of,
    recorded_picture,
)

SEARCH = Check(Kind.COMPARED, Tolerance(0.0))  # measures without a limit: the search only compares schemes

TOGETHER = 4  # prompts that are drawn before their recordings are written
GUIDED = 3  # prompts whose denoiser calls are measured (first, middle, last step); other components: all prompts
Schemes = Mapping[str, Mapping[str, Scheme]]  # by component and weight
Change = Callable[[str, nn.Module], None]  # called with each component's name and module, to change the module in place

_held: list[tuple["MeasuredComponent", nn.Module]] = []  # the subject that this process measured last, and its module


@dataclass(frozen=True)
class MeasuredComponent:
    """A component whose sensitivity is measured; picklable. `weights`: its matrices. `vector_bytes`: bytes of all other
    weights in float32. `load` returns its float32 module; `run` returns a runner of it, quantized by a plan. Two
    subjects with equal `identity` and `spec` have the same module."""

    spec: GraphSpec
    weights: Mapping[str, Weight]
    vector_bytes: int
    load: Callable[[], nn.Module]
    run: Callable[[Plan], Runner]
    identity: object


class Draw(Protocol):
    """Draw the search prompts with these indices by the original, after `change` has modified its modules; None:
    unmodified."""

    def __call__(self, numbers: Sequence[int], change: Change | None = None) -> list[Trajectory]: ...


@dataclass(frozen=True)
class Drawings:
    """The search prompts: how to draw them, with which program, their number, the number of steps, and the guidance
    scale."""

    draw: Draw
    program: Program
    count: int
    steps: int
    guidance: float


def record_prompts(drawings: Drawings, folder: Path) -> None:
    """Draw all prompts with the original, a few at a time, and write one trajectory file for each."""
    for few in groups(drawings.count):
        for number, trajectory in zip(few, drawings.draw(few), strict=True):
            (folder / f"{number}.pickle").write_bytes(pickle.dumps(trajectory))


def groups(count: int) -> list[range]:
    """Return the numbers of all prompts in groups of TOGETHER, independent of the number of processes."""
    return [range(first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)]


def read_prompt(folder: Path, number: int) -> Trajectory:
    """Read one trajectory that `record_prompts` wrote."""
    trajectory: Trajectory = pickle.loads((folder / f"{number}.pickle").read_bytes())
    return trajectory


@torch.no_grad()
def measure_sensitivity(
    subject: MeasuredComponent, weight: str, scheme: Scheme, value_range: ValueRange | None, folder: Path
) -> float:
    """Return the mean squared error of the component's outputs, relative to their mean square, when only `weight` has
    `scheme`: the mean over outputs and calls.

    If the halves of guidance are combined, it is the error of the guided prediction. `value_range` is the range of the
    operator's input; it is needed if `scheme` has a calibrated activation (int8, int16).
    """
    module = _module(subject)
    parameter, owner = module.get_parameter(weight), module.get_submodule(weight.rpartition(".")[0])
    kept = parameter.clone()
    parameter.copy_(torch.from_numpy(restore(store(kept.numpy(), scheme))))
    rounds = scheme.activation != "float" and not isinstance(owner, nn.Embedding)
    handle = round_input(owner, value_range, BITS.get(scheme.activation, 8)) if rounds else None
    errors: list[float] = []
    for call in _calls(subject.spec, folder):
        actual = dict(zip(call.expected, call.run(module), strict=True))
        for name, expected in call.expected.items():
            errors += _relative_errors(expected, call.guided(actual[name]))
    parameter.copy_(kept)
    if handle is not None:
        handle.remove()
    return float(np.mean(errors))


@torch.no_grad()
def measure_ranges(subject: MeasuredComponent, folder: Path) -> dict[str, ValueRange]:
    """Return the value range of each operator's input, by weight, on the calls that sensitivities are measured on.
    Raises ProofError, with the weight's name, if an input is not finite."""
    module = _module(subject)
    ranges: dict[str, ValueRange] = {}
    names = [name for name, weight in subject.weights.items() if weight.operator != "embedding"]
    handles = [
        module.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(partial(_widen, ranges, name))
        for name in names
    ]
    for call in _calls(subject.spec, folder):
        call.run(module)
    for handle in handles:
        handle.remove()
    return ranges


def measure_teacher_forced(subject: MeasuredComponent, plan: Plan, numbers: Sequence[int], folder: Path) -> float:
    """Return the least PSNR (dB) of any output of the quantized component on any recorded call of the prompts
    `numbers`. If it is lower, return the floor at which the largest single error would still pass."""
    runner = subject.run(plan)
    reports = (report for number in numbers for report in judge_graph(SEARCH, runner, [read_prompt(folder, number)]))
    return min(min(report.psnr_db, floor_of_largest_error(report)) for report in reports)


def floor_of_largest_error(report: Verdict) -> float:
    """Return the highest floor (dB) whose limit on a single error the report meets, -inf if there is none."""
    if not report.finite or (report.max_abs > 0 and not report.peak):
        return -inf
    return 20 * log10(10 * report.peak / report.max_abs) if report.max_abs > 0 else inf


def measure_pictures(
    drawings: Drawings, plans: Mapping[str, Plan], numbers: Sequence[int], folder: Path
) -> list[float]:
    """Return the PSNR (dB) of the pictures of the prompts `numbers`, drawn with the components of `plans` quantized."""

    def change(component: str, module: nn.Module) -> None:
        if component in plans:
            fake_quantize(module, plans[component])

    originals = (read_prompt(folder, number) for number in numbers)
    return [
        _picture_db(recorded_picture(original), recorded_picture(other))
        for original, other in zip(originals, drawings.draw(numbers, change), strict=True)
    ]


def _picture_db(expected: Array, actual: Array) -> float:
    """Return the PSNR (dB) of two decoded pictures in 8 bits, -inf if one has NaN or infinity."""
    if find_not_finite("picture", expected, actual) is not None:
        return -inf
    return image_psnr_db(to_uint8(expected), to_uint8(actual))


@torch.no_grad()
def measure_redrawn(
    subjects: Mapping[str, MeasuredComponent], plan: Plan, numbers: Sequence[int], folder: Path
) -> list[float]:
    """Return the PSNR (dB) of pictures that the quantized VAE encoder encodes and the original decodes, compared
    with the original encoder's: the error of the first picture of image-to-image."""
    program = read_prompt(folder, numbers[0]).program
    (encodes, tensor), scale = find_encoder(program)
    decodes, _ = find_producer(program, DECODE, "decoded") or ("", "")
    encoder, decoder = subjects[encodes].run(plan), subjects[decodes].load()

    def decode(encoded: Array) -> Array:
        latents = np.split(encoded, scale, axis=1)[0]  # the mean, if it is a posterior
        decoded: Array = decoder(torch.from_numpy(latents))[0].numpy()
        return decoded

    found = []
    for number in numbers:
        (case,) = cases(encodes, read_prompt(folder, number))
        found.append(_picture_db(decode(case.outputs[tensor]), decode(encoder(case.inputs)[tensor])))
    return found


def find_encoder(program: Program) -> tuple[tuple[str, str], int]:
    """Return the graph and output tensor that compute latents of a picture, and the number of parts of its channels:
    2 for a posterior."""
    for result, parts in (("posterior", 2), ("image_latents", 1)):
        found = find_producer(program, ENCODE_IMAGE, result)
        if found is not None:
            return found, parts
    raise ValueError("the program has no graph that encodes a picture")


def _module(subject: MeasuredComponent) -> nn.Module:
    if not any(held.spec == subject.spec and held.identity == subject.identity for held, _ in _held):
        _held.clear()
        _held.append((subject, subject.load()))
    return _held[0][1]


@dataclass(frozen=True)
class _Call:
    """The probed calls of a component while one prompt was drawn, as one batch. `guidance` is 0 if the halves are
    not combined. `expected`: the outputs of the original, after `guided`."""

    inputs: tuple[Tensor, ...]
    expected: Mapping[str, Array]
    guidance: float

    def run(self, module: nn.Module) -> list[Array]:
        return [output.numpy() for output in module(*self.inputs)]

    def guided(self, output: Array) -> Array:
        """Return the guided prediction if there are two halves, else `output`."""
        if not self.guidance:
            return output
        return output[0::2] + np.float32(self.guidance) * (output[1::2] - output[0::2])


def _calls(spec: GraphSpec, folder: Path) -> Iterator[_Call]:
    """Yield the recorded calls of the graph `spec` as one batch for each prompt."""
    name = spec.name
    count = len(list(folder.glob("*.pickle")))
    for number in range(count):
        trajectory = first_middle_last_steps(read_prompt(folder, number))
        found = list(cases(name, trajectory))
        if number >= GUIDED and any(case.step is not None for case in found):
            break
        combined = model_graph(trajectory.program)[0] == name and len(halves_of(trajectory)) > 1
        inputs = (np.concatenate([case.inputs[tensor.name] for case in found]) for tensor in spec.inputs)
        outputs = {t.name: np.concatenate([case.outputs[t.name] for case in found]) for t in spec.outputs}
        call = _Call(tuple(map(torch.from_numpy, inputs)), {}, trajectory.guidance if combined else 0.0)
        yield _Call(call.inputs, {t: call.guided(output) for t, output in outputs.items()}, call.guidance)


def _relative_errors(expected: Array, actual: Array) -> list[float]:
    """Return the squared error of each sample, relative to the mean square of the expected output."""
    exact = expected.astype(np.float64)
    axes = tuple(range(1, exact.ndim))
    errors: list[float] = (np.mean(np.square(actual - exact), axes) / np.mean(np.square(exact), axes)).tolist()
    return errors


def _widen(ranges: dict[str, ValueRange], name: str, owner: nn.Module, arguments: tuple[Any, ...]) -> None:
    x = arguments[0]
    check_finite(name, x)
    before = ranges.get(name, ValueRange(0.0, 0.0))
    ranges[name] = ValueRange(min(before.low, float(x.min())), max(before.high, float(x.max())))
