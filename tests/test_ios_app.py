"""The iOS app as far as it is read without Xcode: its project, its texts beside Android's, and how a bundle gets in."""

import json
import plistlib
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pbxproj import XcodeProject
from support.command import files_below
from support.forgery import forge
from support.sample_bundle import write_sample

from pocketdiffusion.apps import ios
from pocketdiffusion.deploy import deploy
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.errors import UserError

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "ios_demo"
PROJECT = DEMO / "PocketDiffusion.xcodeproj/project.pbxproj"
LANGUAGES = {"en": "values", "zh-Hans": "values-zh"}  # by the name of Android's folder
PLACE = re.compile(r"%(\d)\$(?:@|\.?\d?[sdf])")
# What iOS says otherwise: its own names of things, and its own ways.
OTHERWISE = {
    "address",
    "controlsNone",
    "errorDownloadText",
    "errorEngineOldText",
    "errorNotHereText",
    "errorNotSavedText",
    "errorStorageText",
    "graphFacts",
    "save",
    "saved",
    "savingPower",
    "separator",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Complete but small, of ONNX, for an Android phone; nothing in it can be run."""
    folder = tmp_path / "apples"
    folder.mkdir()
    seal(folder, write_sample(folder))
    return folder


def make_for_iphone(bundle: Path) -> None:
    """Turn the sample into one of Core ML."""
    manifest = open_bundle(bundle).manifest
    changes = {
        "graphs": {"coreml": manifest.graphs["onnx"]},
        "verdicts": tuple(replace(verdict, format="coreml") for verdict in manifest.verdicts),
        "target": manifest.target.model_copy(update={"title": "Apple iPhone 15", "os_floor": "iOS 17"}),
    }
    (bundle / "pipeline/onnx.json").unlink()
    seal(bundle, manifest.model_copy(update=changes))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ios_demo" / ios.PROJECT).mkdir(parents=True)
    monkeypatch.setattr(ios, "DEMO", tmp_path / "ios_demo")
    return tmp_path / "ios_demo/Bundles"


def objects(kind: str) -> list[dict[str, object]]:
    return [dict(each.__dict__) for each in XcodeProject.load(str(PROJECT)).objects.get_objects_in_section(kind)]


def test_every_object_of_the_project_is_there_and_used() -> None:
    project = XcodeProject.load(str(PROJECT))
    assert project.objectVersion == "77"
    known = set(project.objects.get_keys())
    uses = re.findall(r"\b[0-9A-F]{24}\b", PROJECT.read_text())
    assert set(uses) == known
    assert all(uses.count(name) > 1 for name in known)


def test_the_project_names_what_is_there() -> None:
    assert [group["path"] for group in objects("PBXFileSystemSynchronizedRootGroup")] == ["App"]
    paths = [file["path"] for file in objects("PBXFileReference") if file["sourceTree"] != "BUILT_PRODUCTS_DIR"]
    assert sorted(map(str, paths)) == ["App.entitlements", "App.plist", "Bundles"]
    assert all((DEMO / str(path)).exists() for path in [*paths, "App"])
    products = {str(each["productName"]) for each in objects("XCSwiftPackageProductDependency")}
    package = (DEMO / "Package.swift").read_text()
    assert products == set(re.findall(r'\.library\(name: "(\w+)"', package))
    imports = {
        name
        for path in (DEMO / "App").glob("*.swift")
        for name in re.findall(r"^import (\w+)", path.read_text(), re.MULTILINE)
    }
    assert products <= imports


def test_the_app_is_no_module_that_it_imports() -> None:
    """A file of a module that imports a module of the same name sees itself alone."""
    (target,) = objects("PBXNativeTarget")
    text = PROJECT.read_text()
    assert text.count('PRODUCT_NAME = "$(TARGET_NAME)";') == 2 and "PRODUCT_MODULE_NAME" not in text
    names = re.findall(r'name: "(\w+)"', (DEMO / "Package.swift").read_text())
    assert {"AppModels", "PocketDiffusion"} <= set(names)
    assert target["name"] not in names


def test_the_app_is_run_as_it_is_released() -> None:
    """Without optimization what is computed in Swift is many times slower: noise, steps, a photo's pixels."""
    (path,) = PROJECT.parent.glob("xcshareddata/xcschemes/*.xcscheme")
    scheme = ElementTree.parse(path).getroot()
    actions = {each.tag: each.get("buildConfiguration") for each in scheme}
    assert actions["LaunchAction"] == actions["ProfileAction"] == actions["ArchiveAction"] == "Release"
    (target,) = (each for each in XcodeProject.load(str(PROJECT)).objects.get_objects_in_section("PBXNativeTarget"))
    references = list(scheme.iter("BuildableReference"))
    assert len(references) == 3
    for each in references:
        assert each.get("BlueprintIdentifier") == target.get_id()
        assert each.get("BlueprintName") == path.stem == target["name"]
        assert each.get("BuildableName") == f"{target['name']}.app"
        assert each.get("ReferencedContainer") == f"container:{PROJECT.parent.name}"


def test_the_project_asks_for_memory_and_for_the_systems_of_the_package() -> None:
    entitlements = plistlib.loads((DEMO / "App.entitlements").read_bytes())
    names = ("increased-memory-limit", "extended-virtual-addressing")
    assert entitlements == {f"com.apple.developer.kernel.{name}": True for name in names}
    plist = plistlib.loads((DEMO / "App.plist").read_bytes())
    assert plist == {"UIFileSharingEnabled": True, "LSSupportsOpeningDocumentsInPlace": True}
    text = PROJECT.read_text()
    assert text.count("IPHONEOS_DEPLOYMENT_TARGET = 17.0;") == 2
    assert ".iOS(.v17)" in (DEMO / "Package.swift").read_text()
    assert text.count("CODE_SIGN_ENTITLEMENTS = App.entitlements;") == 2
    assert text.count("INFOPLIST_KEY_NSPhotoLibraryAddUsageDescription") == 2
    regions = re.search(r"knownRegions = \((.*?)\);", text, re.DOTALL)
    assert regions is not None
    assert set(re.findall(r"[\w-]+", regions.group(1))) == {*LANGUAGES, "Base"}


def test_both_apps_speak_alike() -> None:
    strings = json.loads((DEMO / "App/Localizable.xcstrings").read_text())["strings"]
    for language, folder in LANGUAGES.items():
        file = ROOT / "android_demo/app/src/main/res" / folder / "strings.xml"
        android = {camel(each.attrib["name"]): plain(each.text) for each in ElementTree.parse(file).iter("string")}
        ours = {key: plain(each["localizations"][language]["stringUnit"]["value"]) for key, each in strings.items()}
        shared = (ours.keys() & android.keys()) - OTHERWISE
        assert len(shared) > 100
        assert {key: ours[key] for key in shared} == {key: android[key] for key in shared}
        assert ours.keys() & android.keys() >= OTHERWISE


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def plain(text: str | None) -> str:
    """Write places and quotes in one way."""
    return PLACE.sub(r"{\1}", text or "").replace("\\'", "'").replace("’", "'")


def test_a_bundle_goes_where_xcode_finds_it(bundle: Path, checkout: Path) -> None:
    make_for_iphone(bundle)
    (checkout / "apples").mkdir(parents=True)
    (checkout / "apples/old").touch()
    said = deploy(bundle, "ios", name=None, phone=None, progress=lambda _: None)
    assert said.startswith(f"apples is in {checkout / 'apples'}: open ios_demo/{ios.PROJECT} in Xcode")
    assert [path.name for path in checkout.iterdir()] == ["apples"]
    copied = open_bundle(checkout / "apples").manifest
    assert copied.runtime_id == open_bundle(bundle).manifest.runtime_id and not copied.has_proof
    assert "old" not in files_below(checkout / "apples")
    assert ".gitignore" in [path.name for path in (DEMO / "Bundles").iterdir()]


def test_what_is_not_for_an_iphone_is_refused(bundle: Path, checkout: Path) -> None:
    with pytest.raises(UserError, match="and the app ios is for iOS"):
        deploy(bundle, "ios", name=None, phone=None, progress=lambda _: None)
    forge(bundle, "manifest.json", lambda fields: fields["target"].update(os_floor=None))
    with pytest.raises(UserError, match="the app has no engine for onnx, only for coreml"):
        deploy(bundle, "ios", name=None, phone=None, progress=lambda _: None)
    assert not checkout.exists()


def test_a_phone_is_chosen_in_xcode_and_a_checkout_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="leave out --phone"):
        ios.install_bundle(tmp_path, "apples", "my phone", lambda _: None)
    monkeypatch.setattr(ios, "DEMO", tmp_path)
    with pytest.raises(UserError, match="install pocketdiffusion from a checkout"):
        ios.install_bundle(tmp_path, "apples", None, lambda _: None)
