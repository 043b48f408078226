"""Torch in, artifacts out."""

import logging

from pocketdiffusion.export.reference.float32 import pin_float32

pin_float32()  # before anything here imports torch

# Where the TFLite converter is installed so is torchao, which diffusers imports: each of them warns, at every start, of
# kernels that this project has no use for.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)
