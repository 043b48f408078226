"""deploy: which bundles an app takes, and what reaches the phone. The phone is a stand-in: a script called adb, which
answers as adb does and runs the shell's commands on a folder of this computer. No phone was ever asked."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.command import call, files_below, refusal
from support.forgery import forge
from support.sample_bundle import verdict, write_sample

from pocketdiffusion.apps import app_names, load_app
from pocketdiffusion.apps.android import BUNDLES, FILES, LEAST_SDK, PACKAGE
from pocketdiffusion.deploy import deploy, is_older
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.errors import ProofError, UserError

ROOT = Path(__file__).parents[1]
STAND_IN = """#!{python}
import os, shutil, subprocess, sys
from pathlib import Path

phone = Path({phone!r})
words = sys.argv[1:]
with open(phone / "asked", "a") as asked:
    print(*words, file=asked)
if words == ["devices"]:
    print("* daemon started successfully *\\nList of devices attached")
    print((phone / "devices").read_text())
    sys.exit()
assert words[:2] == ["-s", "SERIAL"], words
if words[2] == "shell":
    (command,) = words[3:]
    answers = 'getprop() {{ cat "%s/$1"; }}; pm() {{ cat "%s/packages"; }}; ' % (phone, phone)
    sys.exit(subprocess.run(["sh", "-c", answers + command.replace("/sdcard", str(phone / "sdcard"))]).returncode)
assert words[2] == "push", words
source, place = words[3:]
if (phone / "full").exists():
    sys.exit("adb: error: failed to copy: remote couldn't write file: No space left on device")
assert not Path(str(phone) + place).exists()  # adb would push into it
shutil.copytree(source, str(phone) + place)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Complete but small; nothing in it can be run."""
    folder = tmp_path / "apples"
    folder.mkdir()
    seal(folder, write_sample(folder))
    return folder


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in: one phone, on which the app is installed, with Android 14."""
    folder = tmp_path / "phone"
    for name, answer in {
        "devices": "SERIAL\tdevice",
        "ro.build.version.sdk": "34",
        "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
        "packages": f"package:/data/app/{PACKAGE}/base.apk",
    }.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"{answer}\n")
    Path(f"{folder}{FILES}").mkdir(parents=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "adb").write_text(STAND_IN.format(python=sys.executable, phone=str(folder)))
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return folder


def put(folder: Path, app: str = "android", name: str | None = None, phone: str | None = None) -> str:
    return deploy(folder, app, name=name, phone=phone, progress=lambda line: None)


def test_the_runtime_part_reaches_the_phone(bundle: Path, phone: Path) -> None:
    assert put(bundle) == f"apples is on the phone, in {BUNDLES}/apples: choose it in the app"
    there = Path(f"{phone}{BUNDLES}")
    assert [path.name for path in there.iterdir()] == ["apples"]
    copied = open_bundle(there / "apples").manifest
    assert copied.runtime_id == open_bundle(bundle).manifest.runtime_id and not copied.has_proof


def test_a_bundle_takes_the_place_of_an_older_one(bundle: Path, phone: Path) -> None:
    there = Path(f"{phone}{BUNDLES}")
    for older in (there / "other", there / ".other.arriving", there / "apples"):
        older.mkdir(parents=True)
        (older / "old").touch()
    put(bundle, name="other")
    assert "old" not in files_below(there / "other") and files_below(there / "apples") == ["old"]
    assert sorted(path.name for path in there.iterdir()) == ["apples", "other"]


def test_a_push_that_breaks_off_leaves_the_older_one(bundle: Path, phone: Path) -> None:
    put(bundle)
    before = files_below(phone / "sdcard")
    (phone / "full").touch()
    with pytest.raises(UserError, match="^`adb .*` failed: adb: error: .* No space left on device$"):
        put(bundle)
    assert files_below(phone / "sdcard") == before


@pytest.mark.parametrize(
    ("file", "answer", "told"),
    [
        ("devices", "", r"adb finds no phone: connect one.* pocketdiffusion runtime-part DIR OUT"),
        ("devices", "SERIAL\tunauthorized", "SERIAL does not trust this computer yet: unlock it"),
        ("devices", "SERIAL\toffline", "SERIAL is offline: plug it in again"),
        ("devices", "SERIAL\tdevice\nTWO\tdevice", "finds 2 phones: choose one with --phone, SERIAL or TWO"),
        ("ro.build.version.sdk", "25", r"Android API 25: the app needs 26"),
        ("ro.product.cpu.abilist", "x86_64,x86", "the phone runs x86_64,x86: .* only for arm64-v8a"),
        (
            "packages",
            "",
            r"the app pocketdiffusion.app is not installed on the phone: run `make apk`, then `adb install",
        ),
    ],
)
def test_phones_that_cannot_take_it(bundle: Path, phone: Path, file: str, answer: str, told: str) -> None:
    (phone / file).write_text(answer)
    with pytest.raises(UserError, match=told):
        put(bundle)
    assert "push" not in (phone / "asked").read_text()


def test_an_app_that_was_never_opened_is_told(bundle: Path, phone: Path) -> None:
    Path(f"{phone}{FILES}").rmdir()
    with pytest.raises(UserError, match="has no folder on the phone yet: open it there once"):
        put(bundle)


def test_one_of_several_phones_is_named(bundle: Path, phone: Path) -> None:
    (phone / "devices").write_text("TWO\tdevice\nSERIAL\tdevice\n")
    put(bundle, phone="SERIAL")
    with pytest.raises(UserError, match="adb finds no phone THREE: it finds TWO, SERIAL"):
        put(bundle, phone="THREE")


def graphs(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """Change every graph of a pipeline file."""

    def all_graphs(fields: dict[str, Any]) -> None:
        for graph in fields["graphs"].values():
            change(graph)

    return all_graphs


ENGINE: dict[str, Any] = {"name": "onnxruntime", "opset": {}, "signature": None, "tried": None}


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        (
            "manifest.json",
            lambda fields: fields["target"].update(title="Apple iPhone 15", os_floor="iOS 17"),
            "is for Apple iPhone 15, iOS 17 or newer, and the app android is for Android",
        ),
        (
            "pipeline/onnx.json",
            graphs(lambda graph: graph.update(engine={**ENGINE, "least_version": "1.30"})),
            "text_encoder needs onnxruntime 1.30 or newer, and the app has 1.29.0",
        ),
        (
            "pipeline/onnx.json",
            graphs(lambda graph: graph.update(engine={**ENGINE, "name": "other", "least_version": None})),
            "text_encoder is for the engine other, and the app has onnxruntime",
        ),
    ],
)
def test_bundles_that_the_app_cannot_run(
    bundle: Path, phone: Path, path: str, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    forge(bundle, path, change)
    with pytest.raises(UserError, match=told):
        put(bundle)
    assert not (phone / "asked").exists()


def test_a_format_that_the_app_lacks_is_refused(bundle: Path, phone: Path) -> None:
    manifest = open_bundle(bundle).manifest
    drafted = manifest.model_copy(
        update={
            "graphs": {"coreml": manifest.graphs["onnx"]},
            "verdicts": tuple(replace(verdict, format="coreml") for verdict in manifest.verdicts),
        }
    )
    (bundle / "pipeline/onnx.json").unlink()
    seal(bundle, drafted)
    with pytest.raises(UserError, match="the app has no engine for coreml, only for onnx and tflite"):
        put(bundle)


def test_a_target_that_leaves_the_system_open_goes_to_any_app(bundle: Path, phone: Path) -> None:
    forge(bundle, "manifest.json", lambda fields: fields["target"].update(os_floor=None))
    put(bundle)


def test_a_bundle_that_failed_or_is_corrupt_is_not_put_anywhere(bundle: Path, phone: Path) -> None:
    (bundle / "tokenizer/merges.txt").write_text("damaged")
    with pytest.raises(ProofError, match="merges.txt is corrupt"):
        put(bundle)
    shutil.rmtree(bundle)
    bundle.mkdir()
    draft = write_sample(bundle)
    seal(bundle, draft.model_copy(update={"verdicts": (*draft.verdicts, verdict("unet.out_sample", psnr_db=41.0))}))
    with pytest.raises(ProofError, match="unet.out_sample"):
        put(bundle)
    assert not (phone / "asked").exists()


def test_versions_are_compared_as_numbers() -> None:
    assert is_older("2.9", "2.17") and is_older("2.16.1", "2.17.0") and is_older("2", "2.0.1")
    assert not is_older("2.17", "2.17.0") and not is_older("10.0", "9.9")


def test_the_command_ends_as_every_command_does(
    bundle: Path, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("deploy", bundle, "--app", "android", "--name", "red", fresh=True)
    assert done.returncode == 0 and f"red is on the phone, in {BUNDLES}/red" in done.stdout, done.stderr
    assert "there is no app windows: choose android" in refusal("deploy", bundle, "--app", "windows")
    assert "cannot be used as a bundle" in refusal("deploy", bundle, "--app", "android", "--name", "a b")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "adb is not installed or not on PATH" in refusal("deploy", bundle, "--app", "android", fresh=True)
    (bundle / "tokenizer/merges.txt").write_text("damaged")
    assert call("deploy", bundle, "--app", "android", fresh=True).returncode == 1


def test_an_app_is_a_file() -> None:
    assert "android" in app_names()
    for name in app_names():
        assert load_app(name).name == name


def test_the_android_app_is_as_its_sources_say() -> None:
    maven = {"m": "http://maven.apache.org/POM/4.0.0"}
    properties = ElementTree.parse(ROOT / "android_demo/pom.xml").find("m:properties", maven)
    assert properties is not None
    told = {engine: properties.findtext(f"m:{name}.version", namespaces=maven) for engine, name in VERSIONS.items()}
    assert load_app("android").engines == told
    manifest = ElementTree.parse(ROOT / "android_demo/app/src/main/AndroidManifest.xml").getroot()
    assert manifest.get("package") == PACKAGE
    assert f"LEAST_SDK, TARGET_SDK = {LEAST_SDK}, " in (ROOT / "android_demo/resources.py").read_text()


VERSIONS = {"onnxruntime": "onnxruntime", "litert": "tflite"}
