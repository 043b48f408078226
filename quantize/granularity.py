"""The number of output channels that share a palette: few, where the system supports groups."""

GROUP = 16  # channels; a table of 64 values of float16 then takes 1 % of a convolution of 64 x 3 x 3 inputs
_ONE_TABLE = ("ios16", "ios17")  # for each tensor: groups are there from iOS 18 on


def palette_group(profile: str) -> int:
    """Return the output channels of a group; 0, all of the tensor, where the artifact's dialect has no groups."""
    return 0 if profile in _ONE_TABLE else GROUP
