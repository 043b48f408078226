"""The script that compiles coreml/ to a folder for Apple's Swift pipeline. It needs a Mac: only Xcode has the compiler.

Source: https://github.com/apple/ml-stable-diffusion at e12202c, StableDiffusionPipeline+Resources.swift (the names of
the files, and the MLModelConfiguration) and StableDiffusionPipeline.Configuration.swift (the scale factors; their
defaults are Stable Diffusion 1's). The units are cases of Core ML's MLComputeUnits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from pocketdiffusion.export.backends.coreml import apple_sampler, apple_tokenizer
from pocketdiffusion.export.backends.coreml.apple import PACKAGES
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.sampling.schedule import read_schedule

SCRIPT = "compile_for_apple.sh"
UNITS: Mapping[str, str] = {"cpu": "cpuOnly", "gpu": "cpuAndGPU", "ane": "cpuAndNeuralEngine"}
_TEXT = """\
#!/bin/sh
# Compiles the packages beside this script into a folder that opens as StableDiffusionPipeline(resourcesAt:). On a Mac
# with Xcode: sh {script} OUT. The packages are made for computeUnits = .{unit} of MLModelConfiguration.
# In the pipeline's configuration, set decoderScaleFactor and encoderScaleFactor to {scale}.
# Of every model that pipeline assumes: epsilon is predicted, betas are scaled_linear from 0.00085 to 0.012 over 1000
# steps, and prompts are padded with the end token. Where this model is otherwise, running the script says so.
# rngType = .torchRNG gives diffusers' noise.
{warning}set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${{1:?usage: sh {script} OUT}}
mkdir -p "$out"
for name in TextEncoder Unet VAEDecoder VAEEncoder; do
    xcrun coremlcompiler compile "$here/$name.mlpackage" "$out"
done
cp "$here/../{tokenizer}/vocab.json" "$here/../{tokenizer}/merges.txt" "$out"
"""


def opens_in_apple(graphs: Mapping[str, Graph]) -> bool:
    """Return True if `graphs` are exactly the graphs that Apple's pipeline calls, the decoder for complete pictures."""
    if set(graphs) != set(PACKAGES):
        return False
    denoiser, decoder = (graphs[name].spec.inputs[0].shape[2:] for name in ("unet", "vae_decoder"))
    return denoiser == decoder


def apple_differences(manifest: UnsealedManifest) -> tuple[str, ...]:
    """Return how Apple's pipeline differs from this model, in clauses whose subject is that pipeline. Empty if it draws
    the same pictures up to rounding."""
    text_encoder = manifest.graphs["coreml"]["text_encoder"].spec
    schedule = read_schedule(manifest.scheduler.config)
    own = apple_sampler.differences(schedule, manifest.scheduler.default_sampler)
    return (*own, *apple_tokenizer.differences(manifest.tokenizer, text_encoder))


def known_differences(manifest: UnsealedManifest) -> list[str] | None:
    """Return `apple_differences`, or None if Apple's pipeline does not know the graphs."""
    known = opens_in_apple(manifest.graphs.get("coreml", {}))
    return list(apple_differences(manifest)) if known else None


def write_apple_script(folder: Path, manifest: UnsealedManifest) -> None:
    """Write `folder`/compile_for_apple.sh for the packages of the bundle, if Apple's pipeline knows the graphs."""
    graphs = manifest.graphs["coreml"]
    if opens_in_apple(graphs):
        unit = graphs[model_graph(manifest.program)[0]].compute_unit
        vocabulary = Path(manifest.tokenizers[0].vocab).parent.as_posix()
        write_script(folder, manifest.vae.scaling_factor, unit, apple_differences(manifest), vocabulary)


def write_script(
    folder: Path,
    scaling_factor: float,
    compute_unit: str,
    differences: Sequence[str] = (),
    tokenizer: str = "tokenizer",
) -> None:
    """Write `folder`/compile_for_apple.sh, for the packages of `folder`, emitted for the compute unit "cpu", "gpu" or
    "ane", and the vocabulary in the folder `tokenizer` of the bundle. The script prints `differences` of Apple's
    pipeline, clauses without a subject, on stderr."""
    lines = [f"Apple's pipeline will not draw what this model draws: it {clause}." for clause in differences]
    warning = "".join(f"printf '%s\\n' {quote(line)} >&2\n" for line in lines)
    warning += f"printf '%s\\n' {quote(apple_tokenizer.WORDS)}\n"
    unit = UNITS[compute_unit]
    text = _TEXT.format(script=SCRIPT, scale=scaling_factor, unit=unit, warning=warning, tokenizer=tokenizer)
    (folder / SCRIPT).write_text(text, encoding="utf-8")
