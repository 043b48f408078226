"""What pyproject.toml says is what the folders hold, and the wheel holds it all."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
ROOMS = {name.removeprefix("pocketdiffusion."): folder for name, folder in SETUPTOOLS["package-dir"].items()}


def tracked() -> list[str]:
    """Every file that git knows or would add, with `/`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]


def shipped() -> dict[str, str]:
    """Of every file in a room, its place in the wheel."""
    places = {}
    for path in tracked():
        top = path.split("/")[0]
        if top in ROOMS.values():
            places[path] = f"pocketdiffusion/{path}"
        elif top == "pocketdiffusion":
            places[path] = path
    return places


def test_every_package_is_listed() -> None:
    """A folder that is forgotten imports well from a checkout, and is missing from the wheel."""
    folders = {place.removesuffix("/__init__.py") for place in shipped().values() if place.endswith("/__init__.py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(folder.replace("/", ".") for folder in folders)


def test_every_module_lies_in_a_package() -> None:
    packages = {package.replace(".", "/") for package in SETUPTOOLS["packages"]}
    for place in shipped().values():
        if place.endswith(".py"):
            assert place.rpartition("/")[0] in packages, place


def test_no_link_is_tracked() -> None:
    """A zip of the repository, or a clone on Windows, has no links."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed and not [line for line in listed.splitlines() if line.startswith("120000")]


def test_make_links_every_room() -> None:
    """By name, for editors and type checkers; git passes them over."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (links,) = re.findall(r"^LINKS = (.*)$", makefile, re.MULTILINE)
    assert links.split() == [f"pocketdiffusion/{folder}" for folder in sorted(ROOMS.values())]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"/{link}" for link in links.split()} <= set(ignored)


def test_make_installs_before_it_links(tmp_path: Path) -> None:
    """Where setuptools sees a link, it leaves its room out of what an editable install maps: then nothing would find
    the room once the link is gone."""
    copy_tracked(tmp_path)
    done = subprocess.run(["make", "--dry-run", "check"], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    first = [
        next(n for n, line in enumerate(lines) if word in line) for word in ("rm -f pocket", "--editable", "ln -s")
    ]
    assert first == sorted(first)


@pytest.mark.slow
def test_an_editable_install_maps_every_room(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_tracked(source)
    with DefaultIsolatedEnv() as env:
        builder = ProjectBuilder.from_isolated_env(env, source)
        env.install(builder.build_system_requires)
        with zipfile.ZipFile(builder.build("editable", tmp_path / "out")) as archive:
            (finder,) = [entry for entry in archive.namelist() if entry.endswith("_finder.py")]
            code = archive.read(finder).decode()
    found = re.search(r"^MAPPING[^=]*= (\{.*\})", code, re.MULTILINE)
    assert found
    mapped = {
        package: Path(path).relative_to(source).as_posix() for package, path in ast.literal_eval(found[1]).items()
    }
    rooms = {f"pocketdiffusion.{name}": folder for name, folder in ROOMS.items()}
    assert mapped == {"pocketdiffusion": "pocketdiffusion", **rooms}


def test_every_data_file_is_listed() -> None:
    data: dict[str, list[str]] = SETUPTOOLS["package-data"]
    for place in shipped().values():
        if place.endswith(".py"):
            continue
        folder, _, name = place.rpartition("/")
        below = place.removeprefix("pocketdiffusion/")
        everywhere = folder.replace("/", ".") in SETUPTOOLS["packages"] and any(fnmatch(name, p) for p in data["*"])
        assert everywhere or any(fnmatch(below, p.replace("**/", "")) for p in data["pocketdiffusion"]), place


def test_the_licence_is_there() -> None:
    project = PYPROJECT["project"]
    assert project["license"] == "Apache-2.0" and project["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_constraints_pin_every_requirement() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    extras = PYPROJECT["project"]["optional-dependencies"]
    for requirement in [*PYPROJECT["project"]["dependencies"], *extras["export"], *extras["dev"]]:
        name = re.match(r"[\w.-]+", requirement)
        assert name and canonical(name[0]) in pinned, requirement


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files: setuptools writes build/ and *.egg-info into what it builds."""
    source = tmp_path_factory.mktemp("source")
    copy_tracked(source)
    out = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


def copy_tracked(folder: Path) -> None:
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)


def pip(python: Path, *arguments: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def installed(folder: Path, requirement: str | Path, *more: str | Path) -> Path:
    """The Python of a clean environment with one wheel in it, and what that wheel asks for."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    pip(python, "install", "--constraint", ROOT / "constraints.txt", requirement, *more)
    return python


def run(python: Path, folder: Path, *arguments: str | Path) -> str:
    """Runs the console script of that environment, far from the checkout."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python.parent / "pocketdiffusion", *map(str, arguments)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert held == set(shipped().values())
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(held)} files")


@pytest.mark.slow
def test_the_wheel_works_without_torch(wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    python = installed(tmp_path / "env", wheel)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    found = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in found.stderr
    assert "pixel-8" in run(python, tmp_path, "targets")
    assert "text_encoder" in run(python, tmp_path, "inspect", "bundle")
    assert "passed all" in run(python, tmp_path, "verify", "bundle")
    assert "apple.png" in run(python, tmp_path, "generate", "bundle", "red apple", "--steps", "2", "-o", "apple.png")
    assert (tmp_path / "apple.png").is_file()


@pytest.mark.slow
def test_the_wheel_exports_the_built_in_model(wheel: Path, tmp_path: Path) -> None:
    python = installed(tmp_path / "env", f"{wheel}[export]")
    assert "passed" in run(python, tmp_path, "export", "emoji", "--target", "pixel-8", "-o", "out/bundle")
    assert "passed all" in run(python, tmp_path, "verify", "out/bundle")
    run(python, tmp_path, "generate", "out/bundle", "red apple", "--steps", "4", "-o", "apple.png")
    assert (tmp_path / "apple.png").is_file()
