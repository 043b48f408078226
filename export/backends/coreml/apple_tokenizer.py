"""Differences between the tokenizer of Apple's Swift pipeline and the model's own.

Source: https://github.com/apple/ml-stable-diffusion at e12202c, BPETokenizer.swift (it reads only vocab.json and
merges.txt; the start and end tokens are "<|startoftext|>" and "<|endoftext|>", which also pads) and TextEncoder.swift
(one input).
"""

from pocketdiffusion.runtime.bundle.manifest import Tokenizer
from pocketdiffusion.runtime.graph_spec import GraphSpec

# Printed by the script compile_for_apple.sh of every model.
WORDS = (
    "Prompts with punctuation or numbers get other token ids there than here: Apple's tokenizer splits at spaces alone."
)
_MARKS = ("<|startoftext|>", "<|endoftext|>")


def differences(tokenizer: Tokenizer, text_encoder: GraphSpec) -> tuple[str, ...]:
    """Return how Apple's inputs of the text encoder differ from the model's, in clauses whose subject is that
    pipeline."""
    texts = {token.id: token.text for token in tokenizer.added_tokens}
    found = []
    if "attention_mask" in {tensor.name for tensor in text_encoder.inputs}:
        found.append("gives the text encoder no attention_mask, and so cannot run it")
    own = (texts.get(tokenizer.bos_id), texts.get(tokenizer.eos_id))
    if own != _MARKS:
        found.append(f"begins and ends a prompt with {_MARKS}, this model with {own}")
    if tokenizer.pad_id != tokenizer.eos_id:
        found.append(f"pads with the end token, this model with {texts.get(tokenizer.pad_id)!r}")
    marks = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
    if others := [text for number, text in texts.items() if number not in marks]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        found.append(f"does not know the added tokens {', '.join(map(repr, others[:3]))}{more}")
    return tuple(found)
