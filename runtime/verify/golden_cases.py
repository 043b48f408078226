"""Comparison of the golden data in the runtime part with the proof part that it was copied from."""

from collections.abc import Iterator

import numpy as np

from pocketdiffusion.runtime.bundle.arrays import map_array, read_array
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.image import read_picture
from pocketdiffusion.runtime.verify.golden import middle_call, read_golden
from pocketdiffusion.runtime.verify.metrics import Comparison


def compare_cases(bundle: Bundle) -> Iterator[Comparison]:
    """Yield every array of every golden case with the recorded call that it was copied from, then the picture with the
    recorded one.

    Raise UserError if the proof part is not installed, and ProofError if a case is of another call or the picture
    cannot be read."""
    first = read_golden(bundle, map_array)[0]  # a split UNet's recordings have gigabytes at full size
    for graph, case in bundle.manifest.cases.items():
        call = middle_call(graph, first)
        if call.label != case.label:
            raise ProofError(
                f"{bundle.folder}: the golden case of {graph} is {case.label}, not {call.label}: export again"
            )
        for refs, arrays in ((case.inputs, call.inputs), (case.outputs, call.outputs)):
            for name, ref in refs.items():
                given = read_array(bundle.folder, ref).astype(np.float32)
                yield Comparison(f"{name} of {graph}", arrays[name].astype(np.float32), given)
    picture = bundle.manifest.picture
    if picture is not None:
        height, width, _ = first.picture.shape
        try:
            given = read_picture(bundle.folder / picture.image, width, height).astype(np.float32)
        except OSError as error:
            raise ProofError(
                f"{bundle.folder / picture.image} cannot be read as a picture ({error}): export the model again"
            ) from error
        yield Comparison(picture.image, first.picture.astype(np.float32), given)
