"""Facts on the engine of a format that can be read without the engine: each file of this folder that runs a format
defines `ENGINE`. No library is imported here: emulators of phones have only the engine and numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StandinRun:
    """One way to run the graphs of a format: the module that defines `open_runner`, and its arithmetic."""

    engine: str
    arithmetic: str


@dataclass(frozen=True)
class EngineFacts:
    """What is known about an engine without importing it. `name`: its name in bundles, such as "onnxruntime"."""

    name: str
    half_arithmetic: Literal["float32", "float16"] = "float32"  # of a graph whose weights are stored in float16
    weights_in_own_files: bool = False  # the weights are in other files of the same folder, which `external_data` names
    dynamic_convolutions: bool = False  # int8 convolutions whose range is measured per call are faster than float32
    same_versions: bool = (
        False  # `least_version` and `tried` of a bundle are versions of one library: the first is least
    )
    processor_code: bool = False  # files hold a processor's own code, and `compiled_for` names the processors
    # By compute unit of a phone that another engine runs: why that engine is not here, and what ran the graph instead.
    absent: Mapping[str, str] = field(default_factory=dict)
    standin_runs: Mapping[str, tuple[StandinRun, ...]] = field(
        default_factory=dict
    )  # by stand-in, a name of runtime/devices/standins
    # By stand-in: an arithmetic that is not run there ("-": no arithmetic is), and the reason.
    not_run: Mapping[str, tuple[str, str]] = field(default_factory=dict)
