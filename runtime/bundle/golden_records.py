"""Records of the original's recorded calls and pictures, and of the data that calibration used."""

from typing import Annotated, Literal

from pydantic import Field

from pocketdiffusion.runtime.record import AnyFloat, ArrayRef, BundlePath, Count, Record, Seed, Sha256, Size


class RecordedTensor(Record):
    """One input or output of a graph over all its recorded calls."""

    values: Annotated[
        ArrayRef, Field(description="the distinct values, one after the other: the first axis counts them")
    ]
    calls: Annotated[tuple[Count, ...], Field(description="for each call, which of `values` it had")]


class RecordedGraph(Record):
    """The recorded calls of one graph. Each call belongs to a half of guidance, to a step, to both or to neither."""

    halves: Annotated[
        tuple[Literal["negative", "positive", ""], ...],
        Field(description="of each call the half of guidance that it was for; empty where it was for both or none"),
    ]
    steps: Annotated[
        tuple[Count | None, ...], Field(description="of each call the row of the step table, from 0; null outside")
    ]
    inputs: Annotated[dict[str, RecordedTensor], Field(description="by the name of the tensor")]
    outputs: Annotated[dict[str, RecordedTensor], Field(description="by the name of the tensor")]


class GoldenCase(Record):
    """One recorded call of the original: run the graph on the inputs and compare."""

    label: str = Field(description="which call it was, for people")
    inputs: dict[str, ArrayRef] = Field(description="what the graph is given, by the names of its spec")
    outputs: dict[str, ArrayRef] = Field(description="what the original gave, by the names of its spec")


class OriginalPicture(Record):
    """One picture by the original, and all that it takes to draw it again."""

    image: BundlePath = Field(description="the picture, a PNG of 8 bits a channel")
    prompt: str = Field(description="what was drawn")
    negative_prompt: str | None = Field(description="what was not to be drawn; null: no negative prompt was given")
    seed: Seed = Field(description="an integer from -2^63 to 2^64-1, in decimal digits")
    steps: Size = Field(description="denoising steps")
    sampler: str = Field(description="the sampler's name in the step tables")
    guidance: float = Field(description="guidance scale")


class Trajectory(OriginalPicture):
    """One picture drawn by the original model, and what was computed on the way."""

    arrays: Annotated[
        dict[str, ArrayRef],
        Field(
            description="noise, the first draw; latents, before each row of the step table and at the end; picture, "
            "uint8 [height, width, 3]; undivided, of a bundle with tiles the picture that was decoded in one piece"
        ),
    ]
    graphs: Annotated[dict[str, RecordedGraph], Field(description="the recorded calls of each graph, by its name")]
    controls: dict[str, AnyFloat] = Field(
        default={}, description="PSNR (dB) of other pictures by the original beside this one, by what was other"
    )


class Calibration(Record):
    """The prompts and settings that the value ranges of activations were measured on."""

    prompts: tuple[str, ...] = Field(description="what the original drew")
    seeds: tuple[Seed, ...] = Field(description="the seed of each prompt")
    steps: Size = Field(description="denoising steps of each drawing")
    guidance: float = Field(description="guidance scale of each drawing")
    sha256: Sha256 = Field(description="digest of the token ids, latents and pictures that came of it")
