"""Conformance vectors of pictures, by diffusers' image processor."""

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector

EXACT_DB = 200.0


def picture_vectors(arrays: Arrays) -> tuple[Vector, ...]:
    """Both ways: pictures to the VAE's encoder, and the decoder's output to pictures."""
    levels = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) ^ 85], axis=-1).astype(np.uint8)
    picture = levels.reshape(16, 16, 3)
    given = Vector(
        name="picture to array",
        kind="picture_to_array",
        tells="the encoder gets picture / 127.5 - 1, channels first, in -1 to 1",
        floor_db=130.0,  # diffusers divides by 255 before it doubles, which rounds otherwise in the last bit
        cases=(
            Case(
                label="all levels",
                arrays={"picture": arrays.add(picture)},
                expected={"array": arrays.add(_preprocess(picture))},
            ),
        ),
    )
    ramp = np.linspace(-1.2, 1.2, 768, dtype=np.float32).reshape(1, 3, 16, 16)
    cases = {
        "rounding": (
            ramp,
            "the picture is round(255 * clamp(0.5 * x + 0.5, 0, 1)): a floor in place of the rounding is one level too "
            "dark, and without the clamp levels wrap around",
        ),
        "ties": (_ties(), "a half is rounded to the even level"),
        "NaN and infinity": (
            np.array(
                [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 1.0, -1.0, np.nan, 2.0, -2.0, 0.5], np.float32
            ).reshape(1, 3, 2, 2),
            "NaN becomes level 0, infinities 0 and 255",
        ),
    }
    return (
        given,
        *(
            Vector(
                name=f"array to picture, {name}",
                kind="array_to_picture",
                tells=tells,
                floor_db=EXACT_DB,
                cases=(
                    Case(
                        label=name,
                        arrays={"array": arrays.add(array)},
                        expected={"picture": arrays.add(_postprocess(array))},
                    ),
                ),
            )
            for name, (array, tells) in cases.items()
        ),
    )


def _preprocess(picture: Array) -> Array:
    processor = VaeImageProcessor(do_resize=False)
    array: Array = processor.preprocess(picture[None].astype(np.float32) / 255.0).numpy()
    return array


def _postprocess(array: Array) -> Array:
    """uint8 [h, w, 3]. NaN is taken as black beforehand: in numpy its level depends on the machine."""
    sample = torch.from_numpy(np.where(np.isnan(array), np.float32(-1), array))
    values = VaeImageProcessor().postprocess(sample, output_type="np")
    return np.asarray(VaeImageProcessor.numpy_to_pil(values)[0])


def _ties() -> Array:
    """Outputs that are a level and a half to the last bit, float32 [1, 3, h, w]."""
    found = []
    for level in range(255):
        about = np.float32((level + 0.5) / 255 * 2 - 1)
        near = [about]
        for side in (-np.inf, np.inf):
            value = about
            for _ in range(4):
                value = np.nextafter(value, np.float32(side))
                near.append(value)
        for value in near:
            if (value * np.float32(0.5) + np.float32(0.5)) * np.float32(255) == np.float32(level + 0.5):
                found.append(value)
                break
    found += found[: -len(found) % 12]
    return np.array(found, np.float32).reshape(1, 3, 4, -1)
