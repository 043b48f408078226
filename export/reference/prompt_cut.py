"""What a model's own tokenizer cuts off prompts that are too long for its text encoder."""

from collections.abc import Iterable

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, runtime_tokenizer
from pocketdiffusion.runtime.tokenizer import encode


def find_cuts(checkpoint: Checkpoint, prompts: Iterable[str]) -> dict[str, str]:
    """By prompt: the end of it, as it was typed, that one of the checkpoint's tokenizers has no room for, or ""."""
    tokenizers = [
        runtime_tokenizer(read_tokenizer(folder, checkpoint.model_index[part][1]))
        for part, folder in checkpoint.tokenizers.items()
    ]
    return {prompt: max((encode(each, prompt).cut for each in tokenizers), key=len) for prompt in prompts}
