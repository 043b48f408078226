"""What is known of the engine of a format, without the engine: each file of this folder that runs a format holds one,
called `ENGINE`. Nothing here needs a library: emulators of phones have none but the engine and numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Way:
    """One way to run the graphs of a format: the module whose `open_runner` does, and its arithmetic."""

    engine: str
    arithmetic: str


@dataclass(frozen=True)
class EngineFacts:
    """`name` is the one that bundles use, such as "onnxruntime"."""

    name: str
    half_arithmetic: Literal["float32", "float16"] = "float32"  # of a graph whose weights are stored in float16
    weights_beside: bool = False  # a graph's weights lie in other files beside it, which its `external_data` names
    dynamic_convolutions: bool = False  # convolutions of int8 with a range found at each call are faster than float32
    ways: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)  # by stand-in: how its graphs are run there
    # By stand-in: an arithmetic that is not run there ("-": none is), and the reason.
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)
