"""Compile the app's manifest and resources with Debian's aapt, to R.java and an APK without code.

    python3 android_demo/resources.py OUT

writes OUT/AndroidManifest.xml, OUT/java/pocketdiffusion/app/R.java and OUT/resources.apk. Maven runs it before it
compiles the app; the pack script calls `compile_resources` and adds code and libraries to resources.apk. Elements of
the manifest with tools:node="remove", which removes elements of libraries' manifests, are left out: nothing is merged
here. Needs the packages aapt and android-framework-res.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
MAIN = HERE / "app/src/main"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
ANDROID = "http://schemas.android.com/apk/res/android"
TOOLS = "{http://schemas.android.com/tools}"
LEAST_SDK, TARGET_SDK = 26, 35


def write_manifest(out: Path) -> Path:
    """Write the manifest as Gradle's merger would, and return its path. Libraries are mapped from the APK."""
    ElementTree.register_namespace("android", ANDROID)
    tree = ElementTree.parse(MAIN / "AndroidManifest.xml")
    for parent in list(tree.getroot().iter()):
        for child in list(parent):
            if child.get(TOOLS + "node") == "remove":
                parent.remove(child)
    for application in tree.getroot().iter("application"):
        application.set(f"{{{ANDROID}}}extractNativeLibs", "false")
    path = out / "AndroidManifest.xml"  # aapt accepts no other name
    tree.write(path, encoding="utf-8", xml_declaration=True)
    return path


def compile_resources(out: Path, assets: Path | None = None) -> Path:
    """Return the APK with manifest, resources and assets. Raises CalledProcessError if aapt fails."""
    shutil.rmtree(out, ignore_errors=True)
    java, apk = out / "java", out / "resources.apk"
    java.mkdir(parents=True)
    command = ["aapt", "package", "-f", "-m", "-J", str(java), "-M", str(write_manifest(out)), "-S", str(MAIN / "res")]
    command += ["-I", str(FRAMEWORK), "-F", str(apk)]
    command += ["--min-sdk-version", str(LEAST_SDK), "--target-sdk-version", str(TARGET_SDK)]
    if assets is not None:
        command += ["-A", str(assets), "-0", "zip"]  # not deflated: zip files are compressed already
    subprocess.run(command, check=True)
    return apk


if __name__ == "__main__":
    compile_resources(Path(sys.argv[1]))
