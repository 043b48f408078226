"""The short README.md of a bundle: its model, the licence, and the commands that use it."""

from pocketdiffusion.runtime.bundle.manifest import ModelInfo, TargetInfo

_TEXT = """\
# {name} ({title})

A diffusion model, made for a phone by Pocket Diffusion and compared with the original, which diffusers' {pipeline}
draws with.

- Draw with it: `pocketdiffusion generate DIR "a prompt" -o out.png`
- Judge it again: `pocketdiffusion verify DIR`
- Read it in another language: `manifest.json` names every file; Pocket Diffusion's docs/BUNDLE.md is the specification.
- Ship it in an app: `pocketdiffusion runtime-part DIR OUT` copies the files that drawing needs, and these alone.

Licence of the weights: {licence}{address}. The texts that must travel with it are {texts}.
Credit: {attribution}.
"""


def bundle_readme(model: ModelInfo, target: TargetInfo) -> str:
    """Return the text, which is the same at every export: it has no date and no path of this machine."""
    return _TEXT.format(
        name=model.name,
        title=target.title,
        pipeline=model.pipeline,
        licence=model.licence,
        address="" if model.licence_url is None else f" ({model.licence_url})",
        texts=", ".join(model.licence_files),
        attribution=model.attribution,
    )
