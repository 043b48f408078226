"""Hooks that keep the inputs and outputs of a diffusers pipeline's modules while it draws one picture."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pocketdiffusion.export.families.parts.graph_call import GraphCall, InnerTensor, Tensors
from pocketdiffusion.export.reference.pipeline import Pipeline
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Case, call_positions, is_halved, make_cases, stacked_halves


class Recorder(TorchFunctionMode):
    """A context that keeps every call of a graph in the pipeline, every step of its scheduler, and every draw of noise,
    in their order. Inputs are copied before the call, since a module may write into them."""

    def __init__(self, pipeline: Pipeline, calls: Mapping[str, GraphCall]) -> None:
        super().__init__()
        self.inputs: dict[str, list[Tensors]] = defaultdict(list)
        self.outputs: dict[str, list[Tensors]] = defaultdict(list)
        self.draws: list[Tensor] = []
        self.latents: list[Tensor] = []  # before the first step, and after each
        self._scheduler = pipeline.scheduler
        self._calls = calls
        self._undo: list[Callable[[], None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.randn:
            self.draws.append(result.clone())
        return result

    def __enter__(self) -> "Recorder":
        for name, call in self._calls.items():
            before = call.first.register_forward_pre_hook(partial(self._keep_inputs, name, call), with_kwargs=True)
            after = call.last.register_forward_hook(partial(self._keep_outputs, name, call))
            inner = [
                each.module.register_forward_hook(partial(self._keep_inner, name, tensor, each), with_kwargs=True)
                for tensor, each in call.inner.items()
            ]
            self._undo += [handle.remove for handle in (before, after, *inner)]
        step = self._scheduler.step

        @wraps(step)  # pipelines read its signature
        def recorded(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.latents:
                self.latents.append(sample.clone())
            result = step(model_output, timestep, sample, *args, **kwargs)
            self.latents.append((result[0] if isinstance(result, tuple) else result.prev_sample).clone())
            return result

        self._scheduler.step = recorded
        self._undo.append(partial(delattr, self._scheduler, "step"))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for undo in self._undo:
            undo()

    def _keep_inputs(self, name: str, call: GraphCall, module: nn.Module, args: Any, kwargs: Any) -> None:
        arguments = signature(module.forward).bind(*args, **kwargs).arguments
        self.inputs[name].append({key: tensor.clone() for key, tensor in call.inputs(arguments).items()})

    def _keep_inner(
        self, name: str, tensor: str, inner: InnerTensor, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> None:
        arguments = signature(module.forward).bind(*args, **kwargs).arguments
        self.inputs[name][-1][tensor] = inner.read(arguments, result).clone()

    def _keep_outputs(self, name: str, call: GraphCall, module: nn.Module, args: Any, result: Any) -> None:
        outputs = {key: tensor.clone() for key, tensor in call.outputs(result).items()}
        if not call.parts:
            self.outputs[name].append(outputs)
            return
        tensors = {**self.inputs.pop(name)[-1], **outputs}
        for part, (taken, made) in call.parts.items():
            self.inputs[part].append({key: tensors[key] for key in taken})
            self.outputs[part].append({key: tensors[key] for key in made})


@dataclass(frozen=True)
class Recorded:
    """The recording of one picture: the calls of each graph, each for one half of guidance, and the arrays that belong
    to no call."""

    calls: dict[str, tuple[Case, ...]]
    noise: Array
    latents: Array


def assemble(
    recorder: Recorder, program: Program, prompt: str, guidance: float, no_negative: bool, tiles: int = 1
) -> Recorded:
    """Return the recorded calls, with the halves of guidance separated. diffusers' pipelines encode the positive prompt
    first, and then pass both halves to the modules of a step in one call, the negative one first. The decoder was
    called for each of `tiles`. Raise UserError if the pipeline called its modules another number of times than the
    program does."""
    calls = {}
    for graph, inputs in recorder.inputs.items():
        pairs = list(zip(inputs, recorder.outputs[graph], strict=True))
        halves = stacked_halves(program, graph, guidance)
        if halves > 1:
            shared = not is_halved(program, graph)  # both halves of the pipeline's batch are then the same
            pairs = [pair for both in pairs for pair in _split(*both, halves)[: 1 if shared else halves]]
        try:
            found = call_positions(program, graph, len(pairs), guidance, no_negative, positive_first=True, tiles=tiles)
        except ValueError as error:
            raise UserError(f"diffusers' pipeline makes other calls than the family's program: {error}") from None
        arrays = [(_arrays(tensors), _arrays(results)) for tensors, results in pairs]
        calls[graph] = make_cases(prompt, found, arrays)
    return Recorded(calls, recorder.draws[0].numpy(), torch.cat(recorder.latents).numpy())


def _split(inputs: Tensors, outputs: Tensors, count: int) -> list[tuple[Tensors, Tensors]]:
    """Split a call with a batch of `count` samples into `count` calls; tensors with another batch belong to all of
    them."""

    def part(tensors: Tensors, number: int) -> Tensors:
        return {
            name: tensor.chunk(count)[number] if tensor.ndim and len(tensor) == count else tensor
            for name, tensor in tensors.items()
        }

    return [(part(inputs, number), part(outputs, number)) for number in range(count)]


def _arrays(tensors: Tensors) -> dict[str, Array]:
    """Return the tensors as arrays. A tensor of rank 0 gets the shape [1], as in a graph."""
    return {
        name: (tensor if tensor.ndim else tensor.reshape(1)).contiguous().numpy() for name, tensor in tensors.items()
    }
