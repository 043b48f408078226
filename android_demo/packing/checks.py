"""Check a signed APK, read back from the file by Android's tools. A failed check fails the packing."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from android_demo.packing.archive import PAGE, WORD, data_offset
from android_demo.packing.elf import AARCH64, read_elf
from pocketdiffusion.runtime.errors import ProofError

PERMISSIONS = {  # all that the app may request; INTERNET is for downloads of bundles, which a person starts
    "android.permission.FOREGROUND_SERVICE",
    "android.permission.FOREGROUND_SERVICE_DATA_SYNC",
    "android.permission.INTERNET",
    "android.permission.POST_NOTIFICATIONS",
    "android.permission.READ_EXTERNAL_STORAGE",  # implied by WRITE_EXTERNAL_STORAGE, up to Android 9
    "android.permission.WAKE_LOCK",
    "android.permission.WRITE_EXTERNAL_STORAGE",
}
BADGING = ("sdkVersion:'26'", "targetSdkVersion:'35'", "native-code: 'arm64-v8a'", "launchable-activity: name=")
TELEMETRY = re.compile(r"telemetry|applications\.events|onecollector", re.IGNORECASE)
ENGINE = (  # some classes that are needed for drawing: if one is missing, R8 removed it as unused
    "ai.onnxruntime.OrtSession",
    "org.tensorflow.lite.Interpreter",
    "pocketdiffusion.engine.Generator",
    "pocketdiffusion.engine.Tokenizer",
    "pocketdiffusion.tflite.TfliteEngine",
)


@dataclass(frozen=True)
class Described:
    """The output of the tools for an APK. `badging`: aapt's text. `components`: class names of application,
    activities, services, providers and receivers in the manifest. `classes`: names of all classes."""

    badging: str
    permissions: frozenset[str]
    components: frozenset[str]
    classes: frozenset[str]


def check_apk(apk: Path, segments: Mapping[str, int]) -> Described:
    """Check signature, badging, permissions, dex, libraries and alignment, and return the tools' description.
    `segments`: the expected alignment of each library's load segments in bytes. Raises ProofError, which names the
    fault."""
    _check_signature(apk)
    described = describe(apk)
    check_description(described)
    check_libraries(apk, segments)
    return described


def describe(apk: Path) -> Described:
    """Return what aapt and dexdump print about the APK. Raises ProofError if they refuse the file."""
    badging = _ask(["aapt", "dump", "badging", str(apk)])
    tree = _ask(["aapt", "dump", "xmltree", str(apk), "AndroidManifest.xml"])
    package = re.search(r"package: name='([^']+)'", badging)
    if package is None:
        raise ProofError(f"{apk}: aapt finds no package")
    return Described(
        badging,
        frozenset(re.findall(r"uses-permission: name='([^']+)'", badging)),
        frozenset(_components(tree, package[1])),
        frozenset(_classes(apk)),
    )


def check_description(described: Described) -> None:
    """Check badging, permissions, components and classes. Raises ProofError at the first fault."""
    for stated in BADGING:
        if stated not in described.badging:
            raise ProofError(f"the APK's badging has no {stated}: see resources.py and the manifest")
    if extra := described.permissions - PERMISSIONS:
        raise ProofError(
            f"the APK requests {', '.join(sorted(extra))}, which the app does not need: remove it from the manifest"
        )
    if told := sorted(filter(TELEMETRY.search, described.components | described.classes)):
        raise ProofError(f"the APK has telemetry: {', '.join(told[:3])}")
    if missing := sorted(described.components - described.classes):
        raise ProofError(f"the APK's manifest names {', '.join(missing)}, which R8 removed: see rules.pro")
    if missing := sorted(set(ENGINE) - described.classes):
        raise ProofError(f"the APK's dex has no {', '.join(missing)}, which R8 removed: see rules.pro")


def check_libraries(apk: Path, segments: Mapping[str, int]) -> None:
    """Check that the APK has exactly the libraries of `segments`, for arm64, with load segments of this alignment,
    and that stored entries begin where Android can map them. Raises ProofError at the first fault."""
    with ZipFile(apk) as archive:
        libraries = {name for name in archive.namelist() if name.startswith("lib/")}
        if libraries != {f"lib/arm64-v8a/{name}" for name in segments}:
            raise ProofError(
                f"the APK has the libraries {', '.join(sorted(libraries))}, not the pinned ones: see libraries.toml"
            )
        for info in archive.infolist():
            is_library = info.filename in libraries
            if is_library and info.compress_type != ZIP_STORED:
                raise ProofError(f"{info.filename} is deflated: Android could not map it")
            alignment = PAGE if is_library else WORD
            if info.compress_type == ZIP_STORED and (begin := data_offset(apk, info.filename)) % alignment:
                raise ProofError(f"{info.filename} begins at byte {begin}, which is not a multiple of {alignment}")
        for name in sorted(libraries):
            elf, pinned = read_elf(archive.read(name)), segments[name.rpartition("/")[2]]
            if elf.machine != AARCH64:
                raise ProofError(f"{name} is for machine {elf.machine}, not for arm64")
            if elf.segment != pinned:
                raise ProofError(
                    f"{name} has load segments aligned to {elf.segment}, not to {pinned} as libraries.toml states"
                )


def _check_signature(apk: Path) -> None:
    said = _ask(["apksigner", "verify", "--verbose", "--min-sdk-version", "26", str(apk)])
    for scheme in ("v2", "v3"):
        if not re.search(rf"Verified using {scheme} scheme.*: true", said):
            raise ProofError(f"{apk} is not signed by scheme {scheme}")


def _components(tree: str, package: str) -> Iterable[str]:
    """Yield the classes of application, activities, services, providers and receivers in aapt's tree of the
    manifest."""
    kind = ""
    for line in tree.splitlines():
        if element := re.match(r"\s*E: ([\w-]+)", line):
            kind = element[1]
        elif kind in KINDS and (name := re.search(r'A: android:name\(0x01010003\)="([^"]+)"', line)):
            yield f"{package}{name[1]}" if name[1].startswith(".") else name[1]


KINDS = ("application", "activity", "activity-alias", "service", "provider", "receiver")


def _classes(apk: Path) -> Iterable[str]:
    """Yield the classes of the APK's dex files, whose checksums dexdump verifies."""
    with ZipFile(apk) as archive:
        count = sum(re.fullmatch(r"classes\d*\.dex", name) is not None for name in archive.namelist())
    if not count or _ask(["dexdump", "-c", str(apk)]).count("Checksum verified") != count:
        raise ProofError(f"{apk}: dexdump does not verify its {count} dex files")
    for descriptor in re.findall(r"Class descriptor\s*: 'L([^;]+);'", _ask(["dexdump", str(apk)])):
        yield descriptor.replace("/", ".")


def _ask(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or [""]
        raise ProofError(f"{command[0]} refuses the APK: {said[0]}")
    return done.stdout
