"""A format that no file of the product knows: toy/NAME.json lists the calls of torch.export's graph, toy/NAME.npz has
the weights."""

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.activation_choice import Choice
from pocketdiffusion.export.backends.backend import Backend, Refusal
from pocketdiffusion.export.backends.lazy import Lazy
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.runtime.engines.facts import EngineFacts

ENGINE = EngineFacts(name="toyengine")


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why: a .npz has floats alone."""
    return None if scheme.kind == scheme.activation == "float" else Refusal("a toy has floats only", "fp16")


BACKEND = Backend(
    name="toy",
    engine=ENGINE,
    profiles={"plain": "operators of torch.export"},
    default=Artifact("toy", "plain", "fp16", "cpu", ()),
    activations={"plain": {kind: Choice("fused", kind, "as torch") for kind in ("silu", "quick_gelu", "gelu")}},
    emit=Lazy(f"{__name__}.emit:emit"),
    refusal=refusal,
    search_storages=lambda profile: (FLOAT16,),
    layers=Lazy(f"{__name__}.emit:layers"),
    open_with_outputs=Lazy(f"{__name__}.emit:open_with_outputs"),
    open_replay=Lazy(f"{__name__}.emit:open_replay"),
    needs=Lazy(f"{__name__}.emit:needs"),
    units=Lazy(f"{__name__}.emit:units"),
    count_memory=Lazy(f"{__name__}.emit:count_memory"),
    proved_on="cpu",
)
