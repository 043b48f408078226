"""What a model's own tokenizer cuts off prompts that are too long for its text encoder."""

from collections.abc import Iterable

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, runtime_tokenizer
from pocketdiffusion.runtime.tokenizer import encode


def find_cuts(checkpoint: Checkpoint, prompts: Iterable[str]) -> dict[str, str]:
    """By prompt: the end of it, as it was typed, that the checkpoint's tokenizer has no room for, or ""."""
    source = read_tokenizer(checkpoint.tokenizers["tokenizer"], checkpoint.model_index["tokenizer"][1])
    tokenizer = runtime_tokenizer(source)
    return {prompt: encode(tokenizer, prompt).cut for prompt in prompts}
