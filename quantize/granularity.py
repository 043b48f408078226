"""The number of output channels that share a palette: 16 from iOS 18 on, all of them on iOS 16 and 17."""

GROUP = 16  # channels; a table of 64 float16 values is then 1 % of the size of a convolution of 64 x 3 x 3 inputs
_ONE_TABLE = ("ios16", "ios17")  # one table a tensor: groups need iOS 18


def palette_group(profile: str) -> int:
    """Return the number of output channels that share a table; 0 (the complete tensor) if the artifact's profile has
    no groups."""
    return 0 if profile in _ONE_TABLE else GROUP
