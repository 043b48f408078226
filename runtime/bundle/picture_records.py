"""Records of the settings around the graphs: latents, the VAE's scale, the scheduler, defaults and previews."""

from typing import Self

from pydantic import Field, JsonValue, model_validator

from pocketdiffusion.runtime.record import Record, Size


class Latents(Record):
    """Latents are float32 [batch, channels, height, width]."""

    channels: Size = Field(description="channels of the latents")
    height: Size = Field(description="rows of the latents")
    width: Size = Field(description="columns of the latents")
    scale: Size = Field(description="pixels of the picture for each latent, on each axis")


class Vae(Record):
    """The decoder takes latents / scaling_factor + shift_factor."""

    scaling_factor: float = Field(description="divides latents before they are decoded, multiplies encoded ones")
    shift_factor: float = Field(description="is added after the division, and taken away before the multiplication")
    tile_size: Size | None = Field(
        default=None,
        description="height and width in pixels of a tile of the decoder, at most the picture's own; null: the decoder "
        "is given the complete latents",
    )
    tile_overlap: Size | None = Field(
        default=None, description="least number of pixels that neighbouring tiles share; null without tiles"
    )

    @model_validator(mode="after")
    def _tiles_are_complete(self) -> Self:
        if (self.tile_size is None) != (self.tile_overlap is None):
            raise ValueError("tile_size and tile_overlap are both numbers or both null")
        if self.tile_size is not None and self.tile_overlap is not None and self.tile_overlap >= self.tile_size:
            raise ValueError(f"tile_overlap is {self.tile_overlap}, and must be below tile_size, {self.tile_size}")
        return self


class Scheduler(Record):
    """The sampler of the checkpoint. `config` has the settings of its diffusers scheduler as the pipeline corrects
    them; infinities are spelled as in verdicts. `replaced` names the checkpoint's own scheduler class if the export
    used another sampler instead."""

    config: dict[str, JsonValue]
    default_sampler: str
    replaced: str | None = None


class Defaults(Record):
    """The default settings of a picture: those of the original's diffusers pipeline."""

    steps: Size = Field(description="denoising steps")
    guidance: float = Field(description="guidance scale")
    strength: float = Field(gt=0, le=1, description="of image to image: the share of the steps that are run")


class Preview(Record):
    """A rough picture of latents, one pixel for each, while a picture is drawn. It is fitted, and no part of the
    proof: rgb[k] = bias[k] + sum over c of latents[c] * matrix[c][k], in 0..1 after clamping."""

    matrix: tuple[tuple[float, float, float], ...] = Field(
        description="a row for each channel of the latents: what it adds to red, green and blue"
    )
    bias: tuple[float, float, float] = Field(description="red, green and blue of latents that are all zero")
    psnr_db: float = Field(
        description="how near it comes to the recorded pictures, scaled down to one pixel for each latent: PSNR in dB "
        "with a peak of 1"
    )
