"""All that decides what the original computes for given requests: the contents of the keys of stored results."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import digest
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts.tiles import tiling_of
from pocketdiffusion.export.reference.requests import Request


def recording_facts(
    checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request]
) -> Mapping[str, Any]:
    """Return the model with its tokenizers (all files of each folder, including special and added tokens), the size of
    its pictures and tiles, the requests and the versions of the libraries, as values of JSON."""
    tiling = tiling_of(parts)
    return {
        **({} if tiling is None else {"tiling": asdict(tiling)}),
        "weights": checkpoint.fingerprint,
        "derivations": {p.spec.name: [tensor.derivation for tensor in p.weights.values()] for p in parts},
        "configs": {name: dict(config) for name, config in checkpoint.configs.items()},
        "scheduler": dict(checkpoint.scheduler),
        "sampler": checkpoint.sampler,
        "classes": dict(checkpoint.model_index),
        "tokenizers": {name: digest(folder) for name, folder in checkpoint.tokenizers.items()},
        "shapes": {part.spec.name: [tensor.shape for tensor in part.spec.inputs] for part in parts},
        "requests": [asdict(request) for request in requests],
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
