"""What makes coreml/ a folder that Apple's Swift pipeline opens: a script for a Mac, since only Xcode has the compiler.

Source: https://github.com/apple/ml-stable-diffusion at e12202c, StableDiffusionPipeline+Resources.swift (the names of
the files, and the MLModelConfiguration) and StableDiffusionPipeline.Configuration.swift (the scale factors; their
defaults are Stable Diffusion 1's). The units are cases of Core ML's MLComputeUnits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

SCRIPT = "compile_for_apple.sh"
UNITS: Mapping[str, str] = {"cpu": "cpuOnly", "gpu": "cpuAndGPU", "ane": "cpuAndNeuralEngine"}
_TEXT = """\
#!/bin/sh
# Compiles the packages beside this script into a folder that opens as StableDiffusionPipeline(resourcesAt:). On a Mac
# with Xcode: sh {script} OUT. The packages are made for computeUnits = .{unit} of MLModelConfiguration.
# In the pipeline's configuration, set decoderScaleFactor and encoderScaleFactor to {scale}.
{warning}set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${{1:?usage: sh {script} OUT}}
mkdir -p "$out"
for name in TextEncoder Unet VAEDecoder VAEEncoder; do
    xcrun coremlcompiler compile "$here/$name.mlpackage" "$out"
done
cp "$here/../tokenizer/vocab.json" "$here/../tokenizer/merges.txt" "$out"
"""


def write_script(folder: Path, scaling_factor: float, compute_unit: str, differences: Sequence[str] = ()) -> None:
    """Writes `folder`/compile_for_apple.sh, for the packages of `folder`, made for "cpu", "gpu" or "ane", and the
    tokenizer beside it. It says on stderr what Apple's pipeline does otherwise, by `differences`: clauses without a
    subject."""
    lines = [f"Apple's pipeline will not draw what this model draws: it {clause}." for clause in differences]
    warning = "".join(f"printf '%s\\n' {quote(line)} >&2\n" for line in lines)
    text = _TEXT.format(script=SCRIPT, scale=scaling_factor, unit=UNITS[compute_unit], warning=warning)
    (folder / SCRIPT).write_text(text, encoding="utf-8")
