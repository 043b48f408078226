"""The sensitivity of a weight: the error of its component's outputs when that weight alone is quantized.

It is measured on the calls that the original made while it drew. Each function here that takes a `folder` is one piece
of work for a process of its own, with one thread, so that the numbers depend neither on how many such processes there
are nor on their order. `folder` holds what `record_prompts` wrote: a trajectory a file, of which one at a time is read.
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
from pocketdiffusion.runtime.program import DECODE, ENCODE_IMAGE, Program, find_giver, model_graph
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.check import Check, Tolerance
from pocketdiffusion.runtime.verify.finite import find_not_finite
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, halves_of, probe, recorded_once

SEARCH = Check(Kind.COMPARED, Tolerance(0.0))  # it orders schemes, and nothing has to be reached

TOGETHER = 4  # prompts that are drawn before what was recorded of them is written
GUIDED = 3  # prompts whose calls in the steps are measured, first, middle and last; other components take all prompts
Schemes = Mapping[str, Mapping[str, Scheme]]  # by component and weight
Change = Callable[[str, nn.Module], None]  # is given each component's name and module, to change it in place

_held: list[tuple["Subject", nn.Module]] = []  # what this process measured last


@dataclass(frozen=True)
class Subject:
    """One component to measure, all of it picklable. `weights` are its matrices, `vector_bytes` the bytes of all other
    weights, float32. `load` returns its float32 module; `run` returns a runner of it, quantized by a plan. Two subjects
    of equal `identity` and `spec` are the same module."""

    spec: GraphSpec
    weights: Mapping[str, Weight]
    vector_bytes: int
    load: Callable[[], nn.Module]
    run: Callable[[Plan], Runner]
    identity: object


class Draw(Protocol):
    """Draw the search prompts of these numbers with the original, its modules changed by `change`."""

    def __call__(self, numbers: Sequence[int], change: Change | None = None) -> list[Trajectory]: ...


@dataclass(frozen=True)
class Drawings:
    """The search prompts: how to draw them, by which program, how many there are, in how many steps, how guided."""

    draw: Draw
    program: Program
    count: int
    steps: int
    guidance: float


def record_prompts(drawings: Drawings, folder: Path) -> None:
    """Draw all prompts with the original, a few at a time, and write what it computed."""
    for few in groups(drawings.count):
        for number, trajectory in zip(few, drawings.draw(few), strict=True):
            (folder / f"{number}.pickle").write_bytes(pickle.dumps(trajectory))


def groups(count: int) -> list[range]:
    """Return the numbers of all prompts, a few in each range: the same whatever the number of processes."""
    return [range(first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)]


def read_prompt(folder: Path, number: int) -> Trajectory:
    """Read one trajectory that `record_prompts` wrote."""
    trajectory: Trajectory = pickle.loads((folder / f"{number}.pickle").read_bytes())
    return trajectory


@torch.no_grad()
def measure_sensitivity(
    subject: Subject, weight: str, scheme: Scheme, value_range: ValueRange | None, folder: Path
) -> float:
    """Return the mean squared error of the component's outputs, relative to their mean square, when `weight` alone has
    `scheme`: the mean over outputs and calls.

    Where the halves of guidance are combined, it is the error of the guided prediction. `value_range` is the range of
    the operator's input, where `scheme` turns that into integers of a calibrated range.
    """
    module = _module(subject)
    parameter, owner = module.get_parameter(weight), module.get_submodule(weight.rpartition(".")[0])
    kept = parameter.clone()
    parameter.copy_(torch.from_numpy(restore(store(kept.numpy(), scheme))))
    rounds = scheme.activation != "float" and not isinstance(owner, nn.Embedding)
    handle = round_input(owner, value_range, BITS.get(scheme.activation, 8)) if rounds else None
    errors: list[float] = []
    for call in _calls(subject.spec, folder):
        given = dict(zip(call.wanted, call.run(module), strict=True))
        for name, wanted in call.wanted.items():
            errors += _relative_errors(wanted, call.guided(given[name]))
    parameter.copy_(kept)
    if handle is not None:
        handle.remove()
    return float(np.mean(errors))


@torch.no_grad()
def measure_ranges(subject: Subject, folder: Path) -> dict[str, ValueRange]:
    """Return the range of each operator's input, by weight, on the calls that sensitivities are measured on. Raises
    ProofError, naming the weight, where an input is not finite."""
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


def measure_teacher_forced(subject: Subject, plan: Plan, numbers: Sequence[int], folder: Path) -> float:
    """Return the least PSNR (dB) of any output of the quantized component on any recorded call of the prompts
    `numbers`, or, where that is less, the floor at which its largest single error would just pass."""
    runner = subject.run(plan)
    reports = (report for number in numbers for report in judge_graph(SEARCH, runner, [read_prompt(folder, number)]))
    return min(min(report.psnr_db, bearable_db(report)) for report in reports)


def bearable_db(report: Verdict) -> float:
    """Return the highest floor whose limit of a single error the report keeps, -inf where none is so low."""
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
        _picture_db(recorded_once(original, "decoded"), recorded_once(other, "decoded"))
        for original, other in zip(originals, drawings.draw(numbers, change), strict=True)
    ]


def _picture_db(wanted: Array, given: Array) -> float:
    """Return the PSNR (dB) of two decoded pictures in 8 bits, -inf where one holds NaN or infinity."""
    if find_not_finite("picture", wanted, given) is not None:
        return -inf
    return image_psnr_db(to_uint8(wanted), to_uint8(given))


@torch.no_grad()
def measure_redrawn(subjects: Mapping[str, Subject], plan: Plan, numbers: Sequence[int], folder: Path) -> list[float]:
    """Return the PSNR (dB) of pictures that the quantized encoder of pictures encodes and the original decodes, against
    those that the original encodes: what the encoder does to a picture that image-to-image begins with."""
    program = read_prompt(folder, numbers[0]).program
    (encodes, tensor), scale = find_encoder(program)
    decodes, _ = find_giver(program, DECODE, "decoded") or ("", "")
    encoder, decoder = subjects[encodes].run(plan), subjects[decodes].load()

    def decode(encoded: Array) -> Array:
        latents = np.split(encoded, scale, axis=1)[0]  # the mean, where it is a posterior
        decoded: Array = decoder(torch.from_numpy(latents))[0].numpy()
        return decoded

    found = []
    for number in numbers:
        (case,) = cases(encodes, read_prompt(folder, number))
        found.append(_picture_db(decode(case.outputs[tensor]), decode(encoder(case.inputs)[tensor])))
    return found


def find_encoder(program: Program) -> tuple[tuple[str, str], int]:
    """Return the graph and output tensor that make latents of a picture, and how many parts its channels have."""
    for result, parts in (("posterior", 2), ("image_latents", 1)):
        found = find_giver(program, ENCODE_IMAGE, result)
        if found is not None:
            return found, parts
    raise ValueError("the program encodes no picture")


def _module(subject: Subject) -> nn.Module:
    if not any(held.spec == subject.spec and held.identity == subject.identity for held, _ in _held):
        _held.clear()
        _held.append((subject, subject.load()))
    return _held[0][1]


@dataclass(frozen=True)
class _Call:
    """The probed calls of a component while one prompt was drawn, as one batch. `guidance` is 0 where the halves are
    not combined. `wanted` has the outputs of the original, as `guided` returns them."""

    inputs: tuple[Tensor, ...]
    wanted: Mapping[str, Array]
    guidance: float

    def run(self, module: nn.Module) -> list[Array]:
        return [output.numpy() for output in module(*self.inputs)]

    def guided(self, output: Array) -> Array:
        """Combine the halves of guidance, where there are two."""
        if not self.guidance:
            return output
        return output[0::2] + np.float32(self.guidance) * (output[1::2] - output[0::2])


def _calls(spec: GraphSpec, folder: Path) -> Iterator[_Call]:
    """Yield one batch for each prompt."""
    name = spec.name
    count = len(list(folder.glob("*.pickle")))
    for number in range(count):
        trajectory = probe(read_prompt(folder, number))
        found = list(cases(name, trajectory))
        if number >= GUIDED and any(case.step is not None for case in found):
            break
        combined = model_graph(trajectory.program)[0] == name and len(halves_of(trajectory)) > 1
        inputs = (np.concatenate([case.inputs[tensor.name] for case in found]) for tensor in spec.inputs)
        outputs = {t.name: np.concatenate([case.outputs[t.name] for case in found]) for t in spec.outputs}
        call = _Call(tuple(map(torch.from_numpy, inputs)), {}, trajectory.guidance if combined else 0.0)
        yield _Call(call.inputs, {t: call.guided(output) for t, output in outputs.items()}, call.guidance)


def _relative_errors(wanted: Array, given: Array) -> list[float]:
    """Return the relative squared error of each sample."""
    exact = wanted.astype(np.float64)
    axes = tuple(range(1, exact.ndim))
    errors: list[float] = (np.mean(np.square(given - exact), axes) / np.mean(np.square(exact), axes)).tolist()
    return errors


def _widen(ranges: dict[str, ValueRange], name: str, owner: nn.Module, arguments: tuple[Any, ...]) -> None:
    x = arguments[0]
    check_finite(name, x)
    before = ranges.get(name, ValueRange(0.0, 0.0))
    ranges[name] = ValueRange(min(before.low, float(x.min())), max(before.high, float(x.max())))
