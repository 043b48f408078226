"""Torch models in, artifacts out."""

import logging

from pocketdiffusion.export.reference.float32 import pin_float32

pin_float32()  # before anything here imports torch

# The TFLite converter installs torchao, which diffusers imports: each of them warns, at every start, about kernels that
# this project does not use.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)
