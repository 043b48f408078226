"""Sign an APK with a key that is made once and kept. Android installs a newer APK over an older one only if both are
signed with the same key."""

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError

LEAST_SDK = "26"


@dataclass(frozen=True)
class Key:
    """A PKCS12 file with one RSA key (equal bytes have equal signatures), and the file of its password."""

    store: Path
    password: Path


def find_key(folder: Path) -> Key:
    """Return the key in `folder`; make one if there is none, readable only by its owner. Raises UserError if only
    one of its two files is there, or keytool fails."""
    key = Key(folder / "android-key.p12", folder / "android-key.password")
    if key.store.exists() != key.password.exists():
        raise UserError(
            f"{folder} has no {'password' if key.store.exists() else 'key'} file: put it back, or remove the other one"
        )
    if not key.store.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = folder / f".{key.store.name}.{os.getpid()}"
        with os.fdopen(os.open(key.password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
        try:
            _run(
                ["keytool", "-genkeypair", "-keystore", str(made), "-storetype", "PKCS12", "-alias", "app"]
                + ["-storepass:file", str(key.password), "-keyalg", "RSA", "-keysize", "3072"]
                + ["-validity", "10950", "-dname", "CN=Pocket Diffusion demo"]
            )
        except UserError:
            key.password.unlink()
            raise
        made.chmod(0o600)
        made.rename(key.store)
    return key


def sign(unsigned: Path, out: Path, key: Key) -> None:
    """Sign the APK by signature schemes 2 and 3, which Android 8 and newer check. Raises UserError if apksigner
    fails."""
    command = ["apksigner", "sign", "--ks", str(key.store), "--ks-pass", f"file:{key.password}"]
    command += ["--min-sdk-version", LEAST_SDK, "--v1-signing-enabled", "false", "--v4-signing-enabled", "false"]
    _run([*command, "--out", str(out), str(unsigned)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise UserError(f"{command[0]} failed: {said[0]}")
