"""The parts of packing the Android app that need no program of Android: the zip, ELF headers, pins, what is refused."""

import hashlib
import re
import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest

from android_demo.pack import check_programs, of_archive
from android_demo.packing import checks, libraries
from android_demo.packing.archive import PAGE, Entry, data_offset, write_archive
from android_demo.packing.checks import BADGING, ENGINE, Described, check_description, check_libraries
from android_demo.packing.classes import MODULES, _is_program
from android_demo.packing.elf import AARCH64, Elf, read_elf
from android_demo.packing.libraries import Library, find_aar, native_libraries, read_pinned
from android_demo.resources import LEAST_SDK, TARGET_SDK
from pocketdiffusion.runtime.errors import ProofError, UserError

X86_64 = 62


def elf(machine: int = AARCH64, *alignments: int) -> bytes:
    """A file that has headers alone: a note, then a load segment of each alignment (by default one of a page)."""
    segments = [(4, 4), *((1, alignment) for alignment in alignments or (PAGE,))]
    header = b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HHIQQQ", 3, machine, 1, 0, 64, 0)
    header += struct.pack("<IHHHHHH", 0, 64, 56, len(segments), 0, 0, 0)
    return header + b"".join(struct.pack("<IIQQQQQQ", kind, 5, 0, 0, 0, 0, 0, size) for kind, size in segments)


LIB = "lib/arm64-v8a/"


def test_libraries_begin_at_a_page_and_other_stored_entries_at_a_word(tmp_path: Path) -> None:
    entries = [
        Entry("a.txt", b"a" * 1001, stored=False),
        Entry(f"{LIB}libone.so", b"one", stored=True),
        Entry("resources.arsc", b"table", stored=True),
        Entry(f"{LIB}libtwo.so", b"two" * 9999, stored=True),
    ]
    write_archive(tmp_path / "a.apk", entries)
    with ZipFile(tmp_path / "a.apk") as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()] == [
            (entry.name, entry.data, ZIP_STORED if entry.stored else ZIP_DEFLATED) for entry in entries
        ]
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
    raw = (tmp_path / "a.apk").read_bytes()
    for entry in entries:
        begin = data_offset(tmp_path / "a.apk", entry.name)
        if entry.stored:
            assert raw[begin:].startswith(entry.data) and begin % (PAGE if entry.name.endswith(".so") else 4) == 0
    with pytest.raises(ValueError, match=r"two entries a.txt"):
        write_archive(tmp_path / "b.apk", [entries[0], entries[0]])


def test_the_order_of_another_zip_does_not_show(tmp_path: Path) -> None:
    """aapt's, whose time and order are not ours; the table of resources is stored whatever aapt did."""
    with ZipFile(tmp_path / "aapt.apk", "w", ZIP_DEFLATED) as archive:
        archive.writestr("resources.arsc", b"table")
        archive.writestr("AndroidManifest.xml", b"manifest")
        archive.writestr("res/icon.png", b"icon", compress_type=ZIP_STORED)
    assert list(of_archive(tmp_path / "aapt.apk")) == [
        Entry("AndroidManifest.xml", b"manifest", stored=False),
        Entry("res/icon.png", b"icon", stored=True),
        Entry("resources.arsc", b"table", stored=True),
    ]


def test_elf_headers_are_read() -> None:
    assert read_elf(elf()) == Elf(AARCH64, PAGE)
    assert read_elf(elf(X86_64, 65536, 4096)) == Elf(X86_64, 4096)
    for raw in (b"", b"\x7fELF\x01\x01" + bytes(60), elf()[:40]):
        with pytest.raises(ValueError, match="it is not a 64-bit"):
            read_elf(raw)
    with pytest.raises(ValueError, match="it has no load segment"):
        read_elf(elf()[:56] + b"\x01\x00" + elf()[58:])


@pytest.mark.parametrize(
    ("name", "data", "stored", "told"),
    [
        (f"{LIB}libone.so", elf(AARCH64, 4096), True, r"libone.so has load segments aligned to 4096, not to 16384"),
        (f"{LIB}libone.so", elf(X86_64), True, r"libone.so is for machine 62, not for arm64"),
        (f"{LIB}libone.so", elf(), False, r"libone.so is deflated"),
        (f"{LIB}libother.so", elf(), True, r"has the libraries .*libother.so, not the pinned ones"),
        ("lib/x86_64/libone.so", elf(), True, r"has the libraries lib/x86_64/libone.so, not the pinned"),
    ],
)
def test_wrong_libraries_are_refused(tmp_path: Path, name: str, data: bytes, stored: bool, told: str) -> None:
    right, wrong = tmp_path / "right.apk", tmp_path / "wrong.apk"
    write_archive(right, [Entry(f"{LIB}libone.so", elf(), stored=True)])
    check_libraries(right, {"libone.so": PAGE})
    write_archive(wrong, [Entry(name, data, stored)])
    with pytest.raises(ProofError, match=told):
        check_libraries(wrong, {"libone.so": PAGE})


def test_what_begins_at_another_byte_is_refused(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "wrong.apk", "w", ZIP_STORED) as archive:
        archive.writestr(f"{LIB}libone.so", elf())
    with pytest.raises(ProofError, match=r"libone.so begins at byte \d+, which is not a multiple of 16384"):
        check_libraries(tmp_path / "wrong.apk", {"libone.so": PAGE})


RIGHT = Described(
    badging=" ".join(BADGING),
    permissions=frozenset({"android.permission.INTERNET"}),
    components=frozenset({"pocketdiffusion.app.MainActivity"}),
    classes=frozenset({"pocketdiffusion.app.MainActivity", *ENGINE}),
)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (replace(RIGHT, badging=RIGHT.badging.replace("'35'", "'34'")), "has no targetSdkVersion:'35'"),
        (
            replace(RIGHT, permissions=RIGHT.permissions | {"android.permission.ACCESS_NETWORK_STATE"}),
            "requests android.permission.ACCESS_NETWORK_STATE, which the app does not need",
        ),
        (
            replace(RIGHT, components=RIGHT.components | {"ai.onnxruntime.TelemetryInitializer"}),
            "has telemetry: ai.onnxruntime.TelemetryInitializer",
        ),
        (
            replace(RIGHT, classes=RIGHT.classes | {"ai.onnxruntime.telemetry.HttpClient"}),
            "has telemetry: ai.onnxruntime.telemetry.HttpClient",
        ),
        (
            replace(RIGHT, classes=RIGHT.classes - {"pocketdiffusion.app.MainActivity"}),
            "MainActivity, which R8 removed",
        ),
        (replace(RIGHT, classes=RIGHT.classes - {ENGINE[0]}), f"dex has no {ENGINE[0]}"),
    ],
)
def test_wrong_descriptions_are_refused(wrong: Described, told: str) -> None:
    check_description(RIGHT)
    with pytest.raises(ProofError, match=told):
        check_description(wrong)


def test_components_are_found_in_aapts_tree() -> None:
    tree = """
N: android=http://schemas.android.com/apk/res/android
  E: manifest (line=2)
    E: uses-permission (line=7)
      A: android:name(0x01010003)="android.permission.INTERNET" (Raw: "android.permission.INTERNET")
    E: application (line=9)
      A: android:name(0x01010003)=".PocketApp" (Raw: ".PocketApp")
      E: activity (line=14)
        A: android:name(0x01010003)=".MainActivity" (Raw: ".MainActivity")
        E: intent-filter (line=15)
          E: action (line=16)
            A: android:name(0x01010003)="android.intent.action.MAIN" (Raw: "android.intent.action.MAIN")
      E: provider (line=20)
        A: android:name(0x01010003)="ai.onnxruntime.TelemetryInitializer" (Raw: "ai.onnxruntime.TelemetryInitializer")
"""
    found = set(checks._components(tree, "our.app"))
    assert found == {"our.app.PocketApp", "our.app.MainActivity", "ai.onnxruntime.TelemetryInitializer"}


def test_telemetry_and_what_is_no_program_stay_out() -> None:
    assert _is_program("ai/onnxruntime/OrtSession.class") and _is_program("pocketdiffusion/app/R$string.class")
    for name in (
        "ai/onnxruntime/TelemetryInitializer.class",
        "ai/onnxruntime/telemetry/HttpClient$Configuration.class",
        "META-INF/versions/9/module-info.class",
        "module-info.class",
        "kotlin/kotlin.kotlin_builtins",
    ):
        assert not _is_program(name), name


def aar(path: Path, *names: str) -> Path:
    with ZipFile(path, "w") as archive:
        for name in (*names, "classes.jar"):
            archive.writestr(name, name)
    return path


def test_an_aar_is_the_pinned_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = aar(tmp_path / "a.aar", "jni/arm64-v8a/", "jni/arm64-v8a/libone.so", "jni/x86/libone.so").read_bytes()
    pinned = Library("one", hashlib.sha256(raw).hexdigest(), {"libone.so": PAGE}, npm="one@1", member="one.aar")
    fetched = []

    def from_npm(library: Library) -> bytes:
        fetched.append(library.name)
        return raw

    monkeypatch.setattr(libraries, "_from_npm", from_npm)
    cache = tmp_path / "cache"
    kept = find_aar(pinned, [], cache, lambda line: None)
    assert find_aar(pinned, [], cache, lambda line: None) == kept and fetched == ["one"]
    assert native_libraries(pinned, kept) == {"libone.so": b"jni/arm64-v8a/libone.so"}
    kept.write_bytes(raw + b"x")
    with pytest.raises(UserError, match="one has the sha256 .*, and libraries.toml pins"):
        find_aar(pinned, [], cache, lambda line: None)
    other = Library("other", "0" * 64, {}, npm="other@1", member="one.aar")
    with pytest.raises(UserError, match="other has the sha256"):
        find_aar(other, [], cache, lambda line: None)
    assert [path.name for path in cache.iterdir()] == [kept.name]
    with pytest.raises(UserError, match=r"has the libraries libone.so, and libraries.toml lists others"):
        native_libraries(Library("one", pinned.sha256, {}), kept)


def test_an_aar_of_maven_is_the_pinned_one(tmp_path: Path) -> None:
    raw = aar(tmp_path / "one-1.2.aar").read_bytes()
    pinned = Library("one", hashlib.sha256(raw).hexdigest(), {}, maven="group:one:1.2")
    files = [tmp_path / "other-1.2.aar", tmp_path / "one-1.2.aar"]
    assert find_aar(pinned, files, tmp_path / "cache", lambda line: None) == files[1]
    with pytest.raises(UserError, match="pins group:one:1.2, which packing/pom.xml does not name"):
        find_aar(pinned, files[:1], tmp_path / "cache", lambda line: None)
    files[1].write_bytes(raw + b"x")
    with pytest.raises(UserError, match="one has the sha256"):
        find_aar(pinned, files, tmp_path / "cache", lambda line: None)


def test_the_pins_name_a_source_and_a_digest() -> None:
    pinned = read_pinned()
    assert {library.name for library in pinned} >= {"onnxruntime", "tensorflow-lite", "tensorflow-lite-gpu"}
    for library in pinned:
        assert (library.maven is None) != (library.npm is None)
        assert (library.npm is None) == (library.member is None)
        assert len(bytes.fromhex(library.sha256)) == 32


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs aapt, apksigner, dexdump, keytool, mvn, npm: apt-get install .*aapt"):
        check_programs()


def test_gradle_and_maven_have_the_same_versions_and_modules() -> None:
    """Gradle cannot be run here: what can be compared is what both say."""
    demo = Path(__file__).parents[1] / "android_demo"
    pom = ElementTree.parse(demo / "pom.xml").getroot()
    told = {element.tag.rpartition("}")[2]: element.text for element in pom.iter() if element.tag.endswith("version")}
    gradle = {path.parent.name: path.read_text() for path in demo.glob("*/build.gradle.kts")}
    assert set(re.findall(r'":(\w+)"', (demo / "settings.gradle.kts").read_text())) == set(gradle) == set(MODULES)
    kotlin = set(re.findall(r'kotlin\("\w+"\) version "([\d.]+)"', (demo / "build.gradle.kts").read_text()))
    assert kotlin == {told["kotlin.version"]}
    versions = dict(re.findall(r'"([\w.-]+:[\w.-]+):([\d.]+)"', "".join(gradle.values())))
    assert versions == {
        "com.microsoft.onnxruntime:onnxruntime": told["onnxruntime.version"],
        "com.microsoft.onnxruntime:onnxruntime-android": told["onnxruntime.version"],
        "org.codehaus.mojo:animal-sniffer-annotations": "1.24",
        "org.jetbrains.kotlinx:kotlinx-serialization-json-jvm": told["serialization.version"],
        "org.tensorflow:tensorflow-lite": told["tflite.version"],
        "org.tensorflow:tensorflow-lite-gpu": told["tflite.version"],
        "org.tensorflow:tensorflow-lite-gpu-api": told["tflite.gpu-api.version"],
    }
    pinned = {library.maven for library in read_pinned() if library.maven}
    assert pinned >= {f"{name}:{version}" for name, version in versions.items() if name.startswith("org.tensorflow:")}
    assert f"minSdk = {LEAST_SDK}" in gradle["app"] and f"targetSdk = {TARGET_SDK}" in gradle["app"]
    assert f"sdkVersion:'{LEAST_SDK}'" in BADGING and f"targetSdkVersion:'{TARGET_SDK}'" in BADGING
