"""What a signed APK has to be, read back from the file by the tools of Android. What is not so fails the packing."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from android_demo.packing.archive import PAGE, WORD, data_offset
from android_demo.packing.elf import AARCH64, read_elf
from pocketdiffusion.runtime.errors import ProofError

PERMISSIONS = {  # all that the app may ask for; INTERNET is for the download of a bundle that a person asks for
    "android.permission.FOREGROUND_SERVICE",
    "android.permission.FOREGROUND_SERVICE_DATA_SYNC",
    "android.permission.INTERNET",
    "android.permission.POST_NOTIFICATIONS",
    "android.permission.READ_EXTERNAL_STORAGE",  # which the next but one brings along, up to Android 9
    "android.permission.WAKE_LOCK",
    "android.permission.WRITE_EXTERNAL_STORAGE",
}
BADGING = ("sdkVersion:'26'", "targetSdkVersion:'35'", "native-code: 'arm64-v8a'", "launchable-activity: name=")
TELEMETRY = re.compile(r"telemetry|applications\.events|onecollector", re.IGNORECASE)
ENGINE = (  # some of what draws: where one is missing, R8 took it for unused
    "ai.onnxruntime.OrtSession",
    "org.tensorflow.lite.Interpreter",
    "pocketdiffusion.engine.Generator",
    "pocketdiffusion.engine.Tokenizer",
    "pocketdiffusion.tflite.TfliteEngine",
)


@dataclass(frozen=True)
class Described:
    """What the tools say of an APK: `classes` by their names, `components` by those that the manifest gives them."""

    badging: str
    permissions: frozenset[str]
    components: frozenset[str]
    classes: frozenset[str]


def check_apk(apk: Path, segments: Mapping[str, int]) -> Described:
    """Check signature, badging, permissions, dex, libraries and alignment, and return what the tools said. `segments`
    has for each library the alignment of its load segments that is known. Raises ProofError, naming what is wrong."""
    _check_signature(apk)
    described = describe(apk)
    check_description(described)
    check_libraries(apk, segments)
    return described


def describe(apk: Path) -> Described:
    """Ask aapt and dexdump. Raises ProofError where they refuse the file."""
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
    """Check what the tools said. Raises ProofError."""
    for wanted in BADGING:
        if wanted not in described.badging:
            raise ProofError(f"the APK's badging does not say {wanted}")
    if extra := described.permissions - PERMISSIONS:
        raise ProofError(f"the APK asks for {', '.join(sorted(extra))}, which the app does not need")
    if told := sorted(filter(TELEMETRY.search, described.components | described.classes)):
        raise ProofError(f"the APK has telemetry: {', '.join(told[:3])}")
    if missing := sorted(described.components - described.classes):
        raise ProofError(f"the APK's manifest names {', '.join(missing)}, which R8 removed: see rules.pro")
    if missing := sorted(set(ENGINE) - described.classes):
        raise ProofError(f"the APK's dex lacks {', '.join(missing)}: see rules.pro")


def check_libraries(apk: Path, segments: Mapping[str, int]) -> None:
    """Check that the APK has the libraries of `segments` for arm64 and no others, with load segments aligned as told,
    and that whatever is stored begins where Android can map it. Raises ProofError."""
    with ZipFile(apk) as archive:
        libraries = {name for name in archive.namelist() if name.startswith("lib/")}
        if libraries != {f"lib/arm64-v8a/{name}" for name in segments}:
            raise ProofError(f"the APK has the libraries {', '.join(sorted(libraries))}, not those that are pinned")
        for info in archive.infolist():
            is_library = info.filename in libraries
            if is_library and info.compress_type != ZIP_STORED:
                raise ProofError(f"{info.filename} is deflated: Android could not map it")
            alignment = PAGE if is_library else WORD
            if info.compress_type == ZIP_STORED and (begin := data_offset(apk, info.filename)) % alignment:
                raise ProofError(f"{info.filename} begins at byte {begin}, which is no multiple of {alignment}")
        for name in sorted(libraries):
            elf, wanted = read_elf(archive.read(name)), segments[name.rpartition("/")[2]]
            if elf.machine != AARCH64:
                raise ProofError(f"{name} is for machine {elf.machine}, not for arm64")
            if elf.segment != wanted:
                raise ProofError(f"{name} has load segments aligned to {elf.segment}, where {wanted} is told")


def _check_signature(apk: Path) -> None:
    said = _ask(["apksigner", "verify", "--verbose", "--min-sdk-version", "26", str(apk)])
    for scheme in ("v2", "v3"):
        if not re.search(rf"Verified using {scheme} scheme.*: true", said):
            raise ProofError(f"{apk} is not signed by scheme {scheme}")


def _components(tree: str, package: str) -> Iterable[str]:
    """The classes of application, activities, services, providers and receivers in aapt's tree of the manifest."""
    kind = ""
    for line in tree.splitlines():
        if element := re.match(r"\s*E: ([\w-]+)", line):
            kind = element[1]
        elif kind in KINDS and (name := re.search(r'A: android:name\(0x01010003\)="([^"]+)"', line)):
            yield f"{package}{name[1]}" if name[1].startswith(".") else name[1]


KINDS = ("application", "activity", "activity-alias", "service", "provider", "receiver")


def _classes(apk: Path) -> Iterable[str]:
    """The classes of the APK's dex files, whose checksums dexdump verifies."""
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
