"""Setting up: what is downloaded is what the table says; what is not whole is not used; each refusal is one line."""

import json
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from support.command import call, refusal

from pocketdiffusion.cli.machine import examine
from pocketdiffusion.runtime.devices.ml_drift import refused
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import standin_names
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.tools import install, packages, registries, unpack
from pocketdiffusion.tools.install import write_stamp
from pocketdiffusion.tools.packages import Package, packages_of

ROOT = Path(__file__).parents[1]
PIP = Package("arm64", "debian", "pip", "1.0", sha256(b"pip").hexdigest(), "arm64")


def test_the_wheels_are_those_of_the_host() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    wheels = [package for package in packages_of("arm64") if package.registry == "pypi"]
    assert {"numpy", "onnxruntime", "ai-edge-litert"} <= {package.name for package in wheels}
    for package in wheels:
        assert pinned[package.name] == package.version


@pytest.mark.parametrize("name", standin_names())
def test_every_package_has_its_hash_and_no_address(name: str) -> None:
    for package in packages_of(name):
        assert re.fullmatch("[0-9a-f]{64}", package.sha256) and package.registry in ("debian", "pypi", "npm")
        assert (package.machine != "") == (package.registry == "debian")
    assert "//" not in Path(packages.__file__).with_name("packages.json").read_text()


def standin(cache: Path, name: str = "gpu") -> Path:
    folder = cache / name
    folder.mkdir()
    (folder / "driver.so").write_bytes(b"a driver")
    write_stamp(folder, packages_of(name))
    return folder


def test_a_whole_one_is_found(tmp_path: Path) -> None:
    assert standin(tmp_path) == find_standin(tmp_path, "gpu")


@pytest.mark.parametrize("how", ["nothing", "no stamp", "no file", "short file", "other version", "garbage"])
def test_one_that_is_not_whole_is_not_used(how: str, tmp_path: Path) -> None:
    if how != "nothing":
        folder = standin(tmp_path)
        stamp = folder / "standin.json"
        if how == "no stamp":
            stamp.unlink()
        elif how == "no file":
            (folder / "driver.so").unlink()
        elif how == "short file":
            (folder / "driver.so").write_bytes(b"a")
        elif how == "other version":
            stamp.write_text(stamp.read_text().replace("147.0.0", "146.0.0"))
        else:
            stamp.write_text(json.dumps([1]))
    with pytest.raises(UserError, match=f"pocketdiffusion devices install gpu --standins {tmp_path}$") as caught:
        find_standin(tmp_path, "gpu")
    assert ("driver.so is missing or has a wrong size" in str(caught.value)) == (how in ("no file", "short file"))


def test_debian_may_be_newer_than_the_table(tmp_path: Path) -> None:
    folder = standin(tmp_path, "arm64")
    stamp = folder / "standin.json"
    text = stamp.read_text()
    assert "deb13u5" in text
    stamp.write_text(text.replace("deb13u5", "deb13u6"))
    assert find_standin(tmp_path, "arm64") == folder


def test_another_file_than_the_table_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pip.deb").write_bytes(b"another")
    with pytest.raises(
        UserError, match=f"the downloaded file of pip 1.0 has the sha256 {sha256(b'another').hexdigest()}"
    ):
        registries.check_hash(tmp_path / "pip.deb", PIP, PIP.sha256)


@pytest.mark.parametrize(
    ("version", "signed", "given", "said"),
    [
        ("1.0", b"pip", b"pip", None),
        ("1.0", b"another", b"another", "and tools/packages.json has"),
        ("1.1", b"newer", b"newer", None),
        ("1.1", b"newer", b"changed", "and tools/packages.json has"),
        ("", b"", b"", "has no pip:arm64"),
    ],
)
def test_debian_s_files_are_the_table_s_or_those_of_the_signed_index(
    version: str, signed: bytes, given: bytes, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(tool: str, command: Sequence[str], folder: Path | None = None) -> str:
        if "show" in command and version:
            fields = (
                "Package: pip",
                "Architecture: arm64",
                f"Version: {version}",
                f"SHA256: {sha256(signed).hexdigest()}",
            )
            return "\n".join(fields)
        if "download" in command and folder is not None:
            (folder / f"pip_{version}_arm64.deb").write_bytes(given)
        return "MIRROR/debian main\n" if "indextargets" in command else ""

    monkeypatch.setattr(registries, "_run", run)
    told: list[str] = []
    if said is None:
        files = registries.download([PIP], tmp_path, tmp_path, told.append)
        assert files["pip"].read_bytes() == given
        assert len(told) == (version == "1.1")
    else:
        with pytest.raises(UserError, match=said):
            registries.download([PIP], tmp_path, tmp_path, told.append)


def test_a_registry_that_fails_is_one_line(tmp_path: Path) -> None:
    wheel = Package("arm64", "pypi", "numpy", "0.0.999", "0" * 64)
    with pytest.raises(UserError, match="^pip failed: ") as caught:
        registries.download([wheel], tmp_path, tmp_path, print)
    assert "\n" not in str(caught.value)


def test_a_machine_that_cannot_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "npm" else f"/bin/{tool}")
    if sys.platform == "linux":
        install.check_machine("arm64")
        with pytest.raises(UserError, match="the stand-in gpu needs npm on this machine: install these programs"):
            install.check_machine("gpu")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(UserError, match="needs Linux on x86_64, and this machine is win32"):
        install.check_machine("arm64")


def test_what_the_delegate_prints_is_read() -> None:
    said = (
        "INFO: something\nERROR: Following operations are not supported by GPU delegate:\nDEQUANTIZE: \n"
        "EMBEDDING_LOOKUP: EMBEDDING_LOOKUP: Empty quantization params.\nGATHER_ND: Operation is not supported.\n"
        "147 operations will run on the GPU, and the remaining 32 operations will run on the CPU.\nADD: no\n"
    )
    assert refused(said) == {
        "DEQUANTIZE": "",
        "EMBEDDING_LOOKUP": "Empty quantization params",
        "GATHER_ND": "Operation is not supported",
    }
    assert refused("INFO: all is well") == {}


def test_devices_list_says_what_is_here_and_how_to_get_the_rest(tmp_path: Path) -> None:
    standin(tmp_path)
    found = {finding.name: finding for finding in examine(tmp_path)}
    assert found["onnxruntime"].found and found["stand-in gpu"].found == str(tmp_path / "gpu")
    arm64 = found["stand-in arm64"]
    assert not arm64.found and f"devices install arm64 --standins {tmp_path}" in arm64.remedy
    done = call("devices", "list", "--standins", tmp_path)
    assert done.returncode == 0 and "stand-in arm64" in done.stdout and "devices install arm64" in done.stdout


@pytest.mark.parametrize("device", standin_names())
def test_verify_on_what_is_not_set_up(device: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """The user's mistake, and no failed proof."""
    said = refusal("verify", tiny_bundle, "--device", device, "--standins", tmp_path)
    assert f"the stand-in {device} is not set up in {tmp_path}: run pocketdiffusion devices install {device}" in said


def test_setup_of_what_there_is_not(tmp_path: Path) -> None:
    done = call("devices", "install", "tpu", "--standins", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and "choose from arm64, gpu" in done.stderr


def test_a_folder_that_no_installer_wrote_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--standins ~/projects`, where a folder gpu is the user's own; or notes that were put into a stand-in."""
    monkeypatch.setattr(install, "check_machine", lambda name: None)
    monkeypatch.setattr(install, "download", lambda *_: {})
    monkeypatch.setitem(unpack.UNPACK, "gpu", lambda files, folder: (folder / "driver.so").write_bytes(b"new"))
    notes = tmp_path / "gpu/notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    for _ in range(2):
        with pytest.raises(UserError, match=r"gpu contains '?notes.txt'?, which no installer wrote: move it"):
            install.set_up("gpu", tmp_path, print)
        assert notes.read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["gpu"]
        write_stamp(notes.parent, ())  # a stamp of a stand-in whose notes came later
        stamp = json.loads((tmp_path / "gpu/standin.json").read_text())
        (tmp_path / "gpu/standin.json").write_text(json.dumps({**stamp, "files": {}}))
    notes.unlink()
    install.set_up("gpu", tmp_path, print)
    assert (tmp_path / "gpu/driver.so").read_bytes() == b"new"


def test_a_stand_in_that_is_damaged_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "check_machine", lambda name: None)
    monkeypatch.setattr(install, "download", lambda *_: {})
    monkeypatch.setitem(unpack.UNPACK, "gpu", lambda files, folder: (folder / "driver.so").write_bytes(b"new"))
    folder = standin(tmp_path)
    (folder / "driver.so").write_bytes(b"damaged")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/a.pyc").touch()  # Python's own, from running there
    install.set_up("gpu", tmp_path, print)
    assert (tmp_path / "gpu/driver.so").read_bytes() == b"new"
