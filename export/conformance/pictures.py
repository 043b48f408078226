"""Conformance vectors of pictures, by diffusers' image processor."""

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.questions import EXACT_DB, PIXEL_DB, all_levels, decoded_arrays
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector


def picture_vectors(arrays: Arrays) -> tuple[Vector, ...]:
    """Return the vectors of pictures in both directions: to the VAE's encoder, and from the decoder's output."""
    picture = all_levels()
    given = Vector(
        name="picture to array",
        kind="picture_to_array",
        tells="the encoder gets picture / 127.5 - 1, channels first, in -1 to 1",
        floor_db=PIXEL_DB,
        cases=(
            Case(
                label="all levels",
                arrays={"picture": arrays.add(picture)},
                expected={"array": arrays.add(_preprocess(picture))},
            ),
        ),
    )
    tells = {
        "rounding": (
            "the picture is round(255 * clamp(0.5 * x + 0.5, 0, 1)): a floor in place of the rounding is one level too "
            "dark, and without the clamp levels wrap around"
        ),
        "ties": "a half is rounded to the even level",
        "NaN and infinity": "NaN becomes level 0, infinities 0 and 255",
    }
    return (
        given,
        *(
            Vector(
                name=f"array to picture, {name}",
                kind="array_to_picture",
                tells=tells[name],
                floor_db=EXACT_DB,
                cases=(
                    Case(
                        label=name,
                        arrays={"array": arrays.add(array)},
                        expected={"picture": arrays.add(_postprocess(array))},
                    ),
                ),
            )
            for name, array in decoded_arrays().items()
        ),
    )


def _preprocess(picture: Array) -> Array:
    processor = VaeImageProcessor(do_resize=False)
    array: Array = processor.preprocess(picture[None].astype(np.float32) / 255.0).numpy()
    return array


def _postprocess(array: Array) -> Array:
    """Return the picture, uint8 [h, w, 3]. NaN becomes black beforehand: in numpy its level depends on the machine."""
    sample = torch.from_numpy(np.where(np.isnan(array), np.float32(-1), array))
    values = VaeImageProcessor().postprocess(sample, output_type="np")
    return np.asarray(VaeImageProcessor.numpy_to_pil(values)[0])
