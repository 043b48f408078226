"""The end of a prompt that a model's own tokenizer cuts off, because it is too long for the text encoder."""

from collections.abc import Iterable

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, runtime_tokenizer
from pocketdiffusion.runtime.tokenizer import encode


def find_cuts(checkpoint: Checkpoint, prompts: Iterable[str]) -> dict[str, str]:
    """Return {prompt: its end, as typed, that is cut off by one of the checkpoint's tokenizers; "" if nothing is
    cut}."""
    tokenizers = [
        runtime_tokenizer(read_tokenizer(folder, checkpoint.model_index[part][1]))
        for part, folder in checkpoint.tokenizers.items()
    ]
    return {prompt: max((encode(each, prompt).truncated for each in tokenizers), key=len) for prompt in prompts}
