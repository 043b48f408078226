"""A model in torch as one of the two sides of `compare`, the other being a model or a bundle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import program
from pocketdiffusion.export.reference.prompt_cut import find_cuts
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.pictures import PictureReport, compare_picture
from pocketdiffusion.runtime.verify.recording import Trajectory, recorded_picture


@dataclass(frozen=True)
class ModelCandidate:
    """A checkpoint in float32 without rewrites. It draws with its own scheduler."""

    checkpoint: Checkpoint
    parts: Sequence[Component]
    progress: Progress

    @property
    def title(self) -> str:
        return self.checkpoint.name

    @property
    def format(self) -> str:
        return "torch"

    def part(self, graph: str) -> Component:
        (found,) = [part for part in self.parts if part.spec.name == graph]
        return found

    @property
    def program(self) -> Program:
        return program(self.checkpoint, self.parts)

    def spec(self, graph: str) -> GraphSpec:
        return self.part(graph).spec

    def open(self, graph: str) -> Runner:
        return open_rewritten(self.part(graph), ())

    def precision(self, graph: str) -> tuple[str, str]:
        return "float32", "float32"

    def find_truncated(self, prompt: str) -> str:
        return find_cuts(self.checkpoint, [prompt])[prompt]

    def draw(self, trajectories: Sequence[Trajectory]) -> Iterator[PictureReport]:
        """Draw the pictures of `trajectories` and compare each. Raise UserError if the scheduler makes another number
        of steps."""
        requests = [Request(t.prompt, t.negative_prompt, t.seed, t.steps, t.guidance) for t in trajectories]
        for expected, own in zip(
            trajectories, record(self.checkpoint, self.parts, requests, self.progress), strict=True
        ):
            if expected.latents.shape != own.latents.shape:
                calls = len(own.latents) - 1, len(expected.latents) - 1
                raise UserError(
                    f"{self.title} makes {calls[0]} steps and the reference {calls[1]}: try another --steps"
                )
            latents = [each[None] for each in own.latents[1:]]
            yield compare_picture(self.format, expected, latents, recorded_picture(own), own.picture)
