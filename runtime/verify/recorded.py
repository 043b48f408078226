"""A bundle draws, and what it computes is kept as that of an original is: for another to be compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.engines import graph_format, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.image import from_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.pipeline import draw, find_table, generate, open_tokenizer
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.tokenizer import encode
from pocketdiffusion.runtime.verify.controls import PROMPT, SEED, STEPS, shorten
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory


@dataclass(frozen=True)
class RecordingRunner:
    """Runs `inner`, and keeps what each call was given and gave."""

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
    """The PSNR (dB) of the bundle's own pictures with another seed, one step less, and a neighbouring prompt, beside
    `picture`, which it drew with these options."""
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
    negative_prompt: str = "",
    seed: int = 0,
    steps: int = 20,
    guidance: float = 7.5,
    sampler: str | None = None,
    format: str | None = None,
    controls: bool = False,
) -> Trajectory:
    """One picture by the bundle's own artifacts. Raises UserError as `generate` does, and for a guidance of 1 or less,
    which has no two halves to compare. `controls` draws three more pictures."""
    if not guidance > 1:
        raise UserError(f"guidance {guidance:g} draws one half alone, and a trajectory has two: give more than 1")
    format = graph_format(bundle, format)
    sampler = sampler or bundle.manifest.scheduler.default_sampler
    runners: dict[str, RecordingRunner] = {}

    def opener(bundle: Bundle, name: str, format: str) -> Runner:
        runners[name] = RecordingRunner(open_graph(bundle, name, format))
        return runners[name]

    options: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "format": format,
    }
    drafts = list(generate(bundle, prompt, batched=False, opener=opener, **options))
    picture = drafts[-1].picture
    assert picture is not None
    positive, negative = (outputs for _, outputs in runners["text_encoder"].calls)
    calls = runners["unet"].calls  # the negative half of a step, then the positive
    outputs = np.stack([output["out_sample"][0] for _, output in calls])
    ((decoder_inputs, decoded),) = runners["vae_decoder"].calls
    size = bundle.manifest.latents
    noise = TorchRandom(seed).randn((1, size.channels, size.height, size.width))
    start = noise * np.float32(find_table(bundle, sampler, steps, 0).init_noise_sigma)
    tokenizer = open_tokenizer(bundle)
    tokens = [encode(tokenizer, text) for text in (negative_prompt, prompt)]
    masked = "attention_mask" in {tensor.name for tensor in runners["text_encoder"].spec.inputs}
    return Trajectory(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        ids=np.concatenate([each.ids for each in tokens]),
        states=np.concatenate([negative["last_hidden_state"], positive["last_hidden_state"]]),
        pooled=np.concatenate([negative["pooler_output"], positive["pooler_output"]]),
        noise=noise,
        timesteps=np.array([inputs["timestep"][0] for inputs, _ in calls[::2]], np.float32),
        samples=np.concatenate([inputs["sample"] for inputs, _ in calls[::2]]),
        outputs=outputs.reshape(len(drafts), 2, *outputs.shape[1:]),
        latents=np.concatenate([start, *(draft.latents for draft in drafts)]),
        unscaled=decoder_inputs["latent_sample"],
        decoded=decoded["sample"],
        picture=picture,
        controls=draw_controls(bundle, picture, prompt, **options) if controls else {},
        encoded=open_graph(bundle, "vae_encoder", format)({"sample": from_uint8(picture)})["latent_parameters"],
        mask=np.concatenate([each.mask for each in tokens]) if masked else None,
    )
