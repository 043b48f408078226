"""Names and shapes of Apple's Swift pipeline, so that it opens our packages once they are compiled.

Each tensor of a component has, in the component's order, the name and shape that the pipeline expects. All are float32,
token ids too: `StableDiffusionPipeline` passes `MLShapedArray<Float32>` and converts the outputs. The UNet's batch is
1: the pipeline then calls it once for each half of guidance, and on a phone two samples at once would need twice the
memory for their activations.

Source: https://github.com/apple/ml-stable-diffusion at e12202c, swift/StableDiffusion/pipeline: TextEncoder.swift
(`encode(ids:)` and "last_hidden_state"), Unet.swift (`predictNoise`), StableDiffusionPipeline.swift (`toHiddenStates`,
"Serial predictions from uNet"), Decoder.swift and Encoder.swift (their only input and output, under any name);
names that Swift leaves open are taken from python_coreml_stable_diffusion/torch2coreml.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec


@dataclass(frozen=True)
class Package:
    """One .mlpackage. `names` maps names of the component's tensors to the package's, where they differ.

    `turned` has the tensors whose axes differ: [1, tokens, channels] becomes [1, channels, 1, tokens].
    """

    name: str
    names: Mapping[str, str]
    transposed: frozenset[str] = frozenset()


PACKAGES: Mapping[str, Package] = {
    "text_encoder": Package("TextEncoder", {"pooler_output": "pooled_outputs"}),
    "unet": Package("Unet", {"out_sample": "noise_pred"}, frozenset({"encoder_hidden_states"})),
    "vae_decoder": Package("VAEDecoder", {"latent_sample": "z", "sample": "image"}),
    "vae_encoder": Package("VAEEncoder", {"sample": "x", "latent_parameters": "latent"}),
}
TURN: tuple[int, ...] = (0, 2, 1)  # axes of numpy.transpose; the axis of size 1 is inserted afterwards


def package_of(spec: GraphSpec) -> Package:
    """Return the package of a component; one that Apple's pipeline does not know keeps its own names and shapes."""
    return PACKAGES.get(spec.name, Package(spec.name, {}))


def file_spec(spec: GraphSpec) -> GraphSpec:
    """Return the inputs and outputs of the package, in the component's order, all float32."""
    package = package_of(spec)

    def tensor(own: TensorSpec) -> TensorSpec:
        shape = own.shape
        if own.name in package.transposed:
            batch, tokens, channels = own.shape
            shape = (batch, channels, 1, tokens)
        return TensorSpec(package.names.get(own.name, own.name), shape, "float32", own.doc)

    return GraphSpec(spec.name, tuple(map(tensor, spec.inputs)), tuple(map(tensor, spec.outputs)))
