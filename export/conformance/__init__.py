"""Conformance vectors (runtime/verify/vectors.py), computed by the original libraries and not by our runtime."""

from importlib.metadata import version
from pathlib import Path

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer
from pocketdiffusion.export.conformance.arithmetic import guidance_vector, scale_vectors
from pocketdiffusion.export.conformance.noise import noise_vectors
from pocketdiffusion.export.conformance.pictures import picture_vectors
from pocketdiffusion.export.conformance.runs import run_vectors
from pocketdiffusion.export.conformance.tokens import token_vectors
from pocketdiffusion.export.families import scheduler_config
from pocketdiffusion.runtime.verify.vectors import Arrays, Vectors, write_vectors

LIBRARIES = ("diffusers", "numpy", "tokenizers", "torch", "transformers")


def write_conformance(folder: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Write the vectors of a checkpoint into the bundle's `folder`; return the paths of their files in it."""
    arrays = Arrays()
    tokens = (
        vector
        for number, (part, files) in enumerate(checkpoint.tokenizers.items(), 1)
        for vector in token_vectors(
            read_tokenizer(files, checkpoint.model_index[part][1]), checkpoint.model_index[part][1], arrays, number
        )
    )
    vectors = (
        *tokens,
        *noise_vectors(arrays),
        *run_vectors(scheduler_config(checkpoint), arrays),
        guidance_vector(arrays),
        *scale_vectors(checkpoint.configs["vae"], arrays),
        *picture_vectors(arrays),
    )
    made_by = {name: version(name) for name in LIBRARIES}
    return write_vectors(folder, Vectors(made_by=made_by, vectors=vectors), arrays)
