"""How many output channels share a palette: as few as pay, where the system takes that."""

GROUP = 16  # channels; a table of 64 values of float16 then takes 1 % of a convolution of 64 x 3 x 3 inputs
_ONE_TABLE = ("ios16", "ios17")  # for a whole tensor: groups are there from iOS 18 on


def palette_group(profile: str) -> int:
    """0, the whole tensor, where the artifact's dialect has no groups."""
    return 0 if profile in _ONE_TABLE else GROUP
