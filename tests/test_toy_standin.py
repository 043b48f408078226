"""A stand-in that no file of the product knows: one file, and the line of the engine that runs there. A bundle is
judged on it by these alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.toys import registered

from pocketdiffusion.cli.json_output import verify_record
from pocketdiffusion.cli.options import Device
from pocketdiffusion.runtime.devices import standins
from pocketdiffusion.runtime.devices.judge import find_place
from pocketdiffusion.runtime.devices.standins import load_standin, standin_names
from pocketdiffusion.runtime.engines import onnx
from pocketdiffusion.runtime.engines.facts import StandinRun
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.tools.packages import packages_of
from pocketdiffusion.tools.unpack import UNPACK
from pocketdiffusion.verify import DeviceChoice, verify

SOURCE = '''
"""This machine in place of a phone."""

import sys

from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.errors import ProofError


def launch_toy(cache, core, seconds):
    return Launch(f"toy ({core})", (sys.executable, "-I", "-S"), tuple(p for p in sys.path if p), {}, seconds)


def check(runner, core):
    if core == "slow":
        raise ProofError("toy: the core slow is too slow")


STANDIN = StandinFacts("this machine", launch_toy, check, unit="gpu")
'''


@pytest.fixture(autouse=True)
def toy(tmp_path: Path) -> Iterator[None]:
    with registered(standins, "toy", SOURCE, tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnx, "ENGINE", replace(onnx.ENGINE, standin_runs={"toy": (StandinRun(onnx.__name__, "float32"),)})
        )
        yield


def test_it_is_found_by_its_file() -> None:
    assert standin_names() == ["arm64", "gpu", "toy"]
    with pytest.raises(UserError, match="there is no stand-in tpu: choose from arm64, gpu, toy"):
        load_standin("tpu")


def test_no_other_emulator_is_started_in_place_of_an_unknown_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no stand-in npu-emulator: choose from arm64, gpu, toy"):
        find_place("npu-emulator", tmp_path, "cortex-a76", 1)


def test_a_bundle_is_judged_on_it(tiny_bundle: Path, tmp_path: Path) -> None:
    found = verify(tiny_bundle, place=DeviceChoice("toy", tmp_path))
    assert found.device == "toy" and all(verdict.passed and verdict.device == "toy" for verdict in found.verdicts)
    floors = {verdict.floor_db for verdict in found.verdicts if verdict.subject.startswith("unet")}
    assert floors == {90.0}  # a GPU's ceiling, since it replaces one
    assert {verdict["device"] for verdict in verify_record(found)["verdicts"]} == {"toy"}


def test_its_own_check_of_a_worker_is_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="toy: the core slow is too slow"):
        verify(tiny_bundle, place=DeviceChoice("toy", tmp_path, core="slow"))


def test_each_of_the_product_is_an_option_and_can_be_installed() -> None:
    names = [name for name in standin_names() if name != "toy"]
    assert [device.value for device in Device] == ["host", *names]
    assert sorted(UNPACK) == names and all(packages_of(name) and load_standin(name).tools for name in names)
