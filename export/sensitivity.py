"""What a weight costs when it alone is stored in some way: measured on the calls that the original made while it drew.

Each function here that takes a `folder` is one piece of work for a process of its own, with one thread, so that the
numbers depend neither on how many such processes there are nor on their order. `folder` holds what `record_prompts`
wrote: a trajectory a file, of which one at a time is read.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, log10
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.observed import check_finite
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.quantized import open_quantized, quantize, round_input
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.quantize.qparams import BITS, Span
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.image import to_uint8
from pocketdiffusion.runtime.program import DECODE, ENCODE_IMAGE, Program, find_giver, model_graph
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Check, Tolerance
from pocketdiffusion.runtime.verify.finite import find_not_finite
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, halves_of, probe, recorded_once

TOGETHER = 4  # prompts that are drawn before what was recorded of them is written
GUIDED = 3  # prompts whose calls in the steps are measured, first, middle and last; other components take all prompts
Schemes = Mapping[str, Mapping[str, Scheme]]  # by component and weight

_held: list[tuple[Component, nn.Module]] = []  # what this process measured last


def record_prompts(
    checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request], folder: Path
) -> None:
    """Draws `requests` with the original, a few at a time, and writes what it computed."""
    for first in range(0, len(requests), TOGETHER):
        for number, trajectory in enumerate(record(checkpoint, parts, requests[first : first + TOGETHER]), first):
            (folder / f"{number}.pickle").write_bytes(pickle.dumps(trajectory))


def read_prompt(folder: Path, number: int) -> Trajectory:
    """One trajectory that `record_prompts` wrote."""
    trajectory: Trajectory = pickle.loads((folder / f"{number}.pickle").read_bytes())
    return trajectory


@torch.no_grad()
def measure_damage(part: Component, weight: str, scheme: Scheme, span: Span | None, folder: Path) -> float:
    """The mean squared error of the component's outputs, relative to their mean square, when `weight` alone has
    `scheme`: the mean over outputs and calls. Of what the sampler gets, as a UNet gives it, it is that of the guided
    prediction.

    `span` is that of what the operator takes, where `scheme` turns it into integers of a calibrated range.
    """
    module = _module(part)
    parameter, owner = module.get_parameter(weight), module.get_submodule(weight.rpartition(".")[0])
    kept = parameter.clone()
    parameter.copy_(torch.from_numpy(restore(store(kept.numpy(), scheme))))
    rounds = scheme.activation != "float" and not isinstance(owner, nn.Embedding)
    handle = round_input(owner, span, BITS.get(scheme.activation, 8)) if rounds else None
    errors: list[float] = []
    for call in _calls(part, folder):
        given = dict(zip(call.wanted, call.run(module), strict=True))
        for name, wanted in call.wanted.items():
            errors += _relative_errors(wanted, call.seen(given[name]))
    parameter.copy_(kept)
    if handle is not None:
        handle.remove()
    return float(np.mean(errors))


@torch.no_grad()
def measure_spans(part: Component, folder: Path) -> dict[str, Span]:
    """What each operator takes on the calls that damages are measured on: from the least to the largest, by weight.
    Raises ProofError, naming the weight, where that is not finite."""
    module = _module(part)
    spans: dict[str, Span] = {}
    names = [name for name, weight in weights_of(part).items() if weight.operator != "embedding"]
    handles = [
        module.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(partial(_widen, spans, name))
        for name in names
    ]
    for call in _calls(part, folder):
        call.run(module)
    for handle in handles:
        handle.remove()
    return spans


def measure_forced(part: Component, plan: Plan, numbers: Sequence[int], folder: Path) -> float:
    """The least PSNR (dB) of any output of the quantized component on any recorded call of the prompts `numbers`, or,
    where that is less, the floor at which its largest single error would just pass."""
    runner = open_quantized(part, (), plan)
    reports = (
        report
        for number in numbers
        for report in judge_graph(Check(Kind.COMPARED, Tolerance(0.0)), runner, [read_prompt(folder, number)])
    )
    return min(min(report.psnr_db, _bearable_db(report)) for report in reports)


def _bearable_db(report: Verdict) -> float:
    """The highest floor whose limit of a single error the report keeps, -inf where none is so low."""
    if not report.finite or (report.max_abs > 0 and not report.peak):
        return -inf
    return 20 * log10(10 * report.peak / report.max_abs) if report.max_abs > 0 else inf


def measure_pictures(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    plans: Mapping[str, Plan],
    requests: Sequence[Request],
    numbers: Sequence[int],
    folder: Path,
) -> list[float]:
    """PSNR (dB) of the pictures that the prompts `numbers` give, drawn with the components of `plans` quantized."""

    def watch(component: str, module: nn.Module) -> None:
        if component in plans:
            quantize(module, plans[component])

    drawn = record(checkpoint, parts, [requests[number] for number in numbers], watch=watch, streamed=False)
    originals = (read_prompt(folder, number) for number in numbers)
    return [
        _picture_db(recorded_once(original, "decoded"), recorded_once(other, "decoded"))
        for original, other in zip(originals, drawn, strict=True)
    ]


def _picture_db(wanted: Array, given: Array) -> float:
    """PSNR (dB) of two decoded pictures in 8 bits, -inf where one holds NaN or infinity."""
    if find_not_finite("picture", wanted, given) is not None:
        return -inf
    return image_psnr_db(to_uint8(wanted), to_uint8(given))


@torch.no_grad()
def measure_redrawn(parts: Sequence[Component], plan: Plan, numbers: Sequence[int], folder: Path) -> list[float]:
    """PSNR (dB) of pictures that are encoded by the quantized encoder of pictures and decoded again, against those that
    the original encodes: what the encoder does to a picture that image-to-image begins with."""
    named = {part.spec.name: part for part in parts}
    program = read_prompt(folder, numbers[0]).program
    (encodes, tensor), scale = find_encoder(program)
    decodes, _ = find_giver(program, DECODE, "decoded") or ("", "")
    encoder, decoder = open_quantized(named[encodes], (), plan), load_module(named[decodes])

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
    """Graph and output tensor that a picture becomes latents by, and into how many parts its channels are split."""
    for result, parts in (("posterior", 2), ("image_latents", 1)):
        found = find_giver(program, ENCODE_IMAGE, result)
        if found is not None:
            return found, parts
    raise ValueError("the program encodes no picture")


def _module(part: Component) -> nn.Module:
    if not any(held.spec == part.spec and held.weights == part.weights for held, _ in _held):
        _held.clear()
        _held.append((part, load_module(part)))
    return _held[0][1]


@dataclass(frozen=True)
class _Call:
    """The probed calls of a component while one prompt was drawn, as one batch. `guidance` is 0 where the halves are
    not combined. `wanted` has what the original gave, as `seen`."""

    inputs: tuple[Tensor, ...]
    wanted: Mapping[str, Array]
    guidance: float

    def run(self, module: nn.Module) -> list[Array]:
        return [output.numpy() for output in module(*self.inputs)]

    def seen(self, output: Array) -> Array:
        """Both halves of guidance become one."""
        if not self.guidance:
            return output
        return output[0::2] + np.float32(self.guidance) * (output[1::2] - output[0::2])


def _calls(part: Component, folder: Path) -> Iterator[_Call]:
    """One a prompt."""
    name = part.spec.name
    count = len(list(folder.glob("*.pickle")))
    for number in range(count):
        trajectory = probe(read_prompt(folder, number))
        found = list(cases(name, trajectory))
        if number >= GUIDED and any(case.step is not None for case in found):
            break
        combined = model_graph(trajectory.program)[0] == name and len(halves_of(trajectory)) > 1
        inputs = (np.concatenate([case.inputs[tensor.name] for case in found]) for tensor in part.spec.inputs)
        outputs = {t.name: np.concatenate([case.outputs[t.name] for case in found]) for t in part.spec.outputs}
        call = _Call(tuple(map(torch.from_numpy, inputs)), {}, trajectory.guidance if combined else 0.0)
        yield _Call(call.inputs, {t: call.seen(output) for t, output in outputs.items()}, call.guidance)


def _relative_errors(wanted: Array, given: Array) -> list[float]:
    """Of each sample."""
    exact = wanted.astype(np.float64)
    axes = tuple(range(1, exact.ndim))
    errors: list[float] = (np.mean(np.square(given - exact), axes) / np.mean(np.square(exact), axes)).tolist()
    return errors


def _widen(spans: dict[str, Span], name: str, owner: nn.Module, arguments: tuple[Any, ...]) -> None:
    x = arguments[0]
    check_finite(name, x)
    before = spans.get(name, Span(0.0, 0.0))
    spans[name] = Span(min(before.low, float(x.min())), max(before.high, float(x.max())))
