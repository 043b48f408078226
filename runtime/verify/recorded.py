"""Recording of a bundle: it draws, and its calls are kept in the form of an original's trajectory, for comparisons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.tiling import find_tiling
from pocketdiffusion.runtime.engines import graph_format, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.pipeline import draw, find_table, generate, latents_shape, read_picture
from pocketdiffusion.runtime.program import CLASSIFIER_FREE, ENCODE_IMAGE, text_to_image
from pocketdiffusion.runtime.program_run import Values, run_stage
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.controls import PROMPT, SEED, STEPS, shorten
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, call_positions, make_cases


@dataclass(frozen=True)
class RecordingRunner:
    """Runs `inner`, and keeps the inputs and outputs of each call."""

    inner: Runner
    calls: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = field(default_factory=list)

    @property
    def spec(self) -> GraphSpec:
        return self.inner.spec

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self.inner(inputs)
        self.calls.append(({name: x.copy() for name, x in inputs.items()}, outputs))
        return outputs


def draw_controls(bundle: Bundle, picture: NDArray[np.uint8], prompt: str, **options: Any) -> dict[str, float]:
    """Return the controls of `picture`, which the bundle drew with these options: the PSNR (dB) of its pictures with
    another seed, one step less, and a neighbouring prompt, by the name of the control."""
    others: dict[str, tuple[str, dict[str, Any]]] = {
        SEED: (prompt, {"seed": options["seed"] ^ 1}),
        PROMPT: (shorten(prompt), {}),
        **({STEPS: (prompt, {"steps": options["steps"] - 1})} if options["steps"] > 1 else {}),
    }
    return {
        name: image_psnr_db(picture, draw(bundle, other, **{**options, **changed}))
        for name, (other, changed) in others.items()
    }


def record_bundle(
    bundle: Bundle,
    prompt: str,
    *,
    negative_prompt: str | None = None,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 7.5,
    sampler: str | None = None,
    format: str | None = None,
    controls: bool = False,
) -> Trajectory:
    """Draw one picture with the bundle's own artifacts, and return its trajectory. `controls` draws three more. Raise
    UserError as `generate` does, and if guidance is 1 or less, because a recording needs both halves."""
    program = bundle.manifest.program
    if program.guidance == CLASSIFIER_FREE and not guidance > 1:
        raise UserError(
            f"guidance {guidance:g} does not use the negative prompt, and a comparison needs both: give more than 1"
        )
    format = graph_format(bundle, format)
    sampler = sampler or bundle.manifest.scheduler.default_sampler
    runners: dict[str, RecordingRunner] = {}

    def opener(bundle: Bundle, name: str, format: str) -> Runner:
        runners[name] = RecordingRunner(open_graph(bundle, name, format))
        return runners[name]

    options: dict[str, Any] = {"negative_prompt": negative_prompt, "seed": seed, "steps": steps}
    options |= {"guidance": guidance, "sampler": sampler, "format": format}
    drafts = list(generate(bundle, prompt, batched=False, opener=opener, **options))
    picture = drafts[-1].picture
    assert picture is not None
    _encode_picture(bundle, picture, lambda graph: runners.get(graph) or opener(bundle, graph, format))
    tiling = find_tiling(bundle.manifest.latents, bundle.manifest.vae)
    tiles = 1 if tiling is None else len(tiling.places)
    positions = partial(call_positions, program, guidance=guidance, no_negative=negative_prompt is None, tiles=tiles)
    noise = TorchRandom(seed).randn(latents_shape(bundle))
    start = noise * np.float32(find_table(bundle, sampler, steps, 0).init_noise_sigma)
    return Trajectory(
        program=program,
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        calls={
            name: make_cases(prompt, positions(name, len(each.calls)), each.calls) for name, each in runners.items()
        },
        noise=noise,
        latents=np.concatenate([start, *(draft.latents for draft in drafts)]),
        picture=picture,
        controls=draw_controls(bundle, picture, prompt, **options) if controls else {},
        tiling=tiling,
    )


def _encode_picture(bundle: Bundle, picture: Array, find_runner: Callable[[str], Runner]) -> None:
    """Run the graphs of the stage encode_image, if the program has one, on `picture`, uint8 [height, width, 3]."""
    stage = text_to_image(bundle.manifest.program).get(ENCODE_IMAGE)
    if stage is not None:
        values = Values({"picture": read_picture(bundle, picture)}, {})
        load = partial(read_array, bundle.folder)
        run_stage(stage, {}, values, lambda graph, inputs: find_runner(graph)(inputs), load)
