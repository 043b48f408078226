"""Folders of checkpoints that tests open, change and see refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError

UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
FIRST = "conv_in.bias"  # a small tensor of the UNet


def opened(folder: Path) -> Checkpoint:
    """Open a checkpoint, whatever is reported of it."""
    return open_checkpoint(str(folder), progress=lambda line: None)


def refusal(action: Callable[[], object]) -> str:
    """Return the message of the UserError that `action` raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def change_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Let `change` edit the tensors of a safetensors file, by name."""
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
