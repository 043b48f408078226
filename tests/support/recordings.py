"""Recorded drawings for tests: of a few calls that are made up, and sound ones with a change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Case, Trajectory, label_of

GRAPHS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")  # of Stable Diffusion, in the order of the manifest
PROGRAM = Program.model_validate(
    {
        "guidance": "classifier_free",
        "absent_negative": "encode_empty",
        "draws": ("posterior", "start", "steps"),
        "stages": (
            {
                "stage": "encode_prompt",
                "calls": (
                    {
                        "graph": "text_encoder",
                        "inputs": {"input_ids": "tokens/1"},
                        "outputs": {"last_hidden_state": "text_states"},
                    },
                ),
            },
            {
                "stage": "encode_image",
                "calls": (
                    {
                        "graph": "vae_encoder",
                        "inputs": {"sample": "picture"},
                        "outputs": {"latent_parameters": "posterior"},
                    },
                ),
            },
            {
                "stage": "denoise",
                "calls": (
                    {
                        "graph": "unet",
                        "inputs": {
                            "sample": "scaled_latents",
                            "timestep": "timestep",
                            "encoder_hidden_states": "text_states",
                        },
                        "outputs": {"out_sample": "model_output"},
                    },
                ),
            },
            {
                "stage": "decode",
                "calls": (
                    {
                        "graph": "vae_decoder",
                        "inputs": {"latent_sample": "decoder_latents"},
                        "outputs": {"sample": "decoded"},
                    },
                ),
            },
        ),
    }
)  # of Stable Diffusion


def case(inputs: Mapping[str, Array], outputs: Mapping[str, Array], half: str = "", step: int | None = None) -> Case:
    """One call of the prompt "an apple"."""
    return Case(label_of("an apple", half, step), half, step, inputs, outputs)


def made_up(calls: Mapping[str, Sequence[Case]], steps: int = 1) -> Trajectory:
    """A drawing of which there are these calls, and no arrays."""
    none = np.zeros(0, np.float32)
    given = {graph: tuple(each) for graph, each in calls.items()}
    return Trajectory(PROGRAM, "an apple", "", 0, steps, "ddim", 5.0, given, none, none, none)


def changed(trajectory: Trajectory, graph: str, tensor: str, change: Callable[[Case, Array], Array]) -> Trajectory:
    """The drawing with another input or output `tensor` in each call of `graph`."""

    def of(case: Case, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: change(case, array.copy()) if name == tensor else array for name, array in arrays.items()}

    cases = tuple(
        replace(each, inputs=of(each, each.inputs), outputs=of(each, each.outputs)) for each in trajectory.calls[graph]
    )
    return replace(trajectory, calls={**trajectory.calls, graph: cases})
