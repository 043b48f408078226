"""The float32 of the reference: torch computes in it whatever the environment says, or the export is refused.

oneDNN rounds the inputs of convolutions to bfloat16 if ONEDNN_DEFAULT_FPMATH_MODE or DNNL_DEFAULT_FPMATH_MODE say so
and the processor has such units, and no setting of torch undoes it: a picture is then 54 dB from the float32 one.
oneDNN reads these variables once, when torch is imported, and the first name has priority.
"""

import os
import sys

from pocketdiffusion.runtime.errors import UserError

MODE = "ONEDNN_DEFAULT_FPMATH_MODE"
NEAR = 1e-5  # the largest error; bfloat16 and TF32 have 2e-4
_ADVICE = f"unset {MODE}, DNNL_DEFAULT_FPMATH_MODE and settings of torch's precision, then run it again"


def pin_float32() -> None:
    """Make oneDNN compute in float32. Call it before torch is imported; later it changes nothing."""
    if "torch" not in sys.modules:
        os.environ[MODE] = "STRICT"


def check_float32() -> None:
    """Set torch's own precision to float32, and check with a convolution and a matrix product (10 ms) that it computes
    so.

    Raise UserError if it does not.
    """
    import torch
    from torch.nn.functional import conv2d

    torch.backends.mkldnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    value = 1 + 2.0**-12
    convolved = conv2d(torch.full((2, 64, 16, 16), value), torch.ones(64, 64, 3, 3), padding=1)[0, 0, 5, 5] / 576
    multiplied = (torch.full((256, 512), value) @ torch.ones(512, 512))[0, 0] / 512
    for operator, found in (("a convolution", float(convolved)), ("a matrix product", float(multiplied))):
        if not abs(found - value) <= NEAR:
            raise UserError(
                f"torch computes {operator} with less than float32 precision ({found:.6f} for {value:.6f}): {_ADVICE}"
            )
