"""The graphs of two families, small: what programs are checked against."""

from collections.abc import Mapping

from pocketdiffusion.runtime.graph_spec import Dim, GraphSpec, TensorSpec


def spec(name: str, inputs: Mapping[str, tuple[Dim, ...]], outputs: Mapping[str, tuple[Dim, ...]]) -> GraphSpec:
    """float32 but for token ids."""
    given, made = (
        tuple(
            TensorSpec(tensor, shape, "int32" if tensor == "input_ids" else "float32") for tensor, shape in each.items()
        )
        for each in (inputs, outputs)
    )
    return GraphSpec(name, given, made)


LATENTS = (1, 4, 8, 8)
SD = {
    each.name: each
    for each in (
        spec("text_encoder", {"input_ids": (1, 77)}, {"last_hidden_state": (1, 77, 6), "pooler_output": (1, 6)}),
        spec("vae_encoder", {"sample": (1, 3, 16, 16)}, {"latent_parameters": (1, 8, 8, 8)}),
        spec(
            "unet",
            {"sample": LATENTS, "timestep": (1,), "encoder_hidden_states": (1, 77, 6)},
            {"out_sample": LATENTS},
        ),
        spec("vae_decoder", {"latent_sample": LATENTS}, {"sample": (1, 3, 16, 16)}),
    )
}
SDXL = SD | {
    each.name: each
    for each in (
        spec("text_encoder_2", {"input_ids": (1, 77)}, {"last_hidden_state": (1, 77, 10), "text_embeds": (1, 10)}),
        spec(
            "unet",
            {
                "sample": ("batch", 4, 8, 8),
                "timestep": (1,),
                "encoder_hidden_states": ("batch", 77, 16),
                "text_embeds": ("batch", 10),
                "time_ids": ("batch", 6),
            },
            {"out_sample": ("batch", 4, 8, 8)},
        ),
    )
}
