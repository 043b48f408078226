"""The pictures that the original draws for the gate. Nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pocketdiffusion.runtime.bundle.verdicts import ProofKind
from pocketdiffusion.runtime.verify.controls import ALL, SEED


@dataclass(frozen=True)
class Request:
    """The arguments of one picture. `negative_prompt` None is an absent negative prompt."""

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int = 10
    guidance: float = 7.5


# The gate's own prompts: with and without a negative prompt, short, long, and with marks that tokenizers get wrong.
REQUESTS = (
    Request("red apple", seed=1),
    Request("a picture of a tiger face", "blurry, low quality", seed=2, guidance=5.0),
    Request("Slice of pizza, food & cheese!", seed=3, guidance=3.0),
    Request("the sunflower's 2 petals", "grey", seed=4),
)


@dataclass(frozen=True)
class Proof:
    """How much the original draws for a proof: `requests`, and for each of them the pictures of `controls`.
    `rung_steps`: how many steps of each request's picture the rungs below the shipped artifact run; the shipped
    artifact runs all."""

    requests: tuple[Request, ...]
    controls: tuple[str, ...]
    rung_steps: int


# A quick proof has few steps of one picture, with both halves of guidance, and one control.
PROOFS: Mapping[ProofKind, Proof] = {
    "full": Proof(REQUESTS, ALL, rung_steps=3),
    "quick": Proof((replace(REQUESTS[1], steps=3),), (SEED,), rung_steps=2),
}
