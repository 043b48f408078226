"""Core ML: packages in coreml/NAME.mlpackage, run by Core ML on Apple's systems and by our own executor elsewhere."""

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.backend import Backend, Package
from pocketdiffusion.export.backends.coreml.activations import CHOICES
from pocketdiffusion.export.backends.coreml.refusals import refusal
from pocketdiffusion.export.backends.lazy import Lazy, folder_functions
from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.runtime.engines.coreml import ENGINE

PROFILES = {f"ios{version}": f"ML programs for iOS {version} or newer" for version in (16, 17, 18)}


def search_storages(profile: str) -> tuple[Scheme, ...]:
    """Return the palette schemes that the system `profile` supports, smallest first, then float16."""
    bits = (1, 2, 3, 4, 6, 8) if profile == "ios18" else (1, 2, 4, 6, 8)
    return (*(Scheme("palette", each, palette_group(profile)) for each in bits), FLOAT16)


BACKEND = Backend(
    name="coreml",
    engine=ENGINE,
    profiles=PROFILES,
    default=Artifact("coreml", "ios17", "fp16", "gpu", ("fused_attention", "quick_gelu")),
    activations=dict.fromkeys(PROFILES, CHOICES),
    **folder_functions(__name__),
    refusal=refusal,
    search_storages=search_storages,
    systems=("iOS",),
    compute_units=("cpu", "gpu", "ane"),
    float16_only=("ane",),
    rewrites_refused={"split_timesteps": "the executor of these programs has no floor"},
    layout="tokens_last",
    find_islands=Lazy(f"{__name__}.islands:find_islands"),
    tools=("coremltools",),
    packages=(Package("coremltools", "reads Core ML", "pip install 'pocketdiffusion[coreml]'"),),
    write_script=Lazy(f"{__name__}.apple_layout:write_apple_script"),
    reader_differences=Lazy(f"{__name__}.apple_layout:known_differences"),
)
