"""What a model's own tokenizer cuts off prompts that are too long for its text encoder."""

from pathlib import Path

from transformers import CLIPTokenizer


def find_cut(folder: Path, prompt: str) -> str:
    """Return the end of `prompt`, as it was typed, that the tokenizer in `folder` has no room for, or ""."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    return prompt[offsets[room][0] :] if len(offsets) > room else ""
