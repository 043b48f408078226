"""What makes coreml/ a folder that Apple's Swift pipeline opens: a script for a Mac, since only Xcode has the compiler.

Source: https://github.com/apple/ml-stable-diffusion at e12202c, StableDiffusionPipeline+Resources.swift (the names of
the files) and StableDiffusionPipeline.Configuration.swift (the scale factors; their defaults are Stable Diffusion 1's).
"""

from pathlib import Path

SCRIPT = "compile_for_apple.sh"
_TEXT = """\
#!/bin/sh
# Compiles the packages beside this script into a folder that opens as StableDiffusionPipeline(resourcesAt:). On a Mac
# with Xcode: sh {script} OUT. In the configuration, set decoderScaleFactor and encoderScaleFactor to {scale}.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${{1:?usage: sh {script} OUT}}
mkdir -p "$out"
for name in TextEncoder Unet VAEDecoder VAEEncoder; do
    xcrun coremlcompiler compile "$here/$name.mlpackage" "$out"
done
cp "$here/../tokenizer/vocab.json" "$here/../tokenizer/merges.txt" "$out"
"""


def write_script(folder: Path, scaling_factor: float) -> None:
    """Writes `folder`/compile_for_apple.sh, for the packages of `folder` and the tokenizer beside it."""
    (folder / SCRIPT).write_text(_TEXT.format(script=SCRIPT, scale=scaling_factor), encoding="utf-8")
