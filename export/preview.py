"""A rough picture of latents for apps: colours as a linear function of the channels, fitted to recorded pictures."""

from collections.abc import Sequence

import numpy as np

from pocketdiffusion.runtime.bundle.manifest import Preview
from pocketdiffusion.runtime.verify.recording import Trajectory


def fit_preview(trajectories: Sequence[Trajectory]) -> Preview | None:
    """Fit red, green and blue (0..1) of each recorded picture, averaged over the pixels of each latent, to its last
    latents by least squares. Return None if a latent is not finite."""
    latents, colours = [], []
    for trajectory in trajectories:
        last = trajectory.latents[-1].astype(np.float64)
        channels, height, width = last.shape
        pixels = trajectory.picture.astype(np.float64) / 255
        scale = pixels.shape[0] // height
        latents.append(last.reshape(channels, -1).T)
        colours.append(pixels.reshape(height, scale, width, scale, 3).mean((1, 3)).reshape(-1, 3))
    inputs, expected = np.concatenate(latents), np.concatenate(colours)
    if not np.isfinite(inputs).all():
        return None
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    found = np.linalg.lstsq(inputs, expected, rcond=None)[0].round(6)
    error = np.sqrt(np.mean((np.clip(inputs @ found, 0, 1) - expected) ** 2))
    rows = [(float(red), float(green), float(blue)) for red, green, blue in found]
    return Preview(matrix=tuple(rows[:-1]), bias=rows[-1], psnr_db=round(-20 * float(np.log10(max(error, 1e-6))), 1))
