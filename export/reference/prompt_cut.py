"""What a model's own tokenizer cuts off prompts that are too long for its text encoder."""

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, runtime_tokenizer
from pocketdiffusion.runtime.tokenizer import encode


def find_cut(checkpoint: Checkpoint, prompt: str) -> str:
    """Return the end of `prompt`, as it was typed, that the checkpoint's tokenizer has no room for, or ""."""
    source = read_tokenizer(checkpoint.tokenizers["tokenizer"], checkpoint.model_index["tokenizer"][1])
    return encode(runtime_tokenizer(source), prompt).cut
