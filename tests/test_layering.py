"""Imports point one way: front door, export, quantize, runtime; tools beside. Each room has its own libraries only."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pocketdiffusion", "export", "quantize", "runtime", "tools")

# What each room may import of the others. Importing `pocketdiffusion` itself is importing nothing but its folder.
BELOW = {
    "pocketdiffusion": {"pocketdiffusion", "export", "quantize", "runtime", "tools"},
    "export": {"export", "quantize", "runtime"},
    "quantize": {"quantize", "runtime"},
    "runtime": {"runtime"},
    "tools": {"runtime", "tools"},
}

RUNTIME = {"numpy", "tokenizers", "PIL", "pydantic", "pydantic_core"}
TORCH = {"torch", "diffusers", "transformers"}
# The libraries of each file: the longest path that it begins with counts.
LIBRARIES = {
    "runtime/": RUNTIME,
    "runtime/engines/": RUNTIME | {"ai_edge_litert", "coremltools", "onnxruntime"},
    "runtime/engines/mlprogram/": RUNTIME,
    "runtime/engines/facts.py": set(),
    "runtime/graph_spec.py": set(),  # emulators of phones have no package but the engine and numpy
    "runtime/devices/compiled.py": RUNTIME | {"ai_edge_litert"},
    "runtime/devices/tensorflow_lite.py": RUNTIME | {"tensorflow"},
    "quantize/": RUNTIME,
    "tools/": set(),
    "quantize/measure/": RUNTIME | {"torch"},
    "export/": RUNTIME | TORCH | {"onnx", "onnx_ir", "onnxscript", "onnxruntime", "huggingface_hub", "safetensors"},
    "export/families/": RUNTIME | TORCH | {"packaging"},
    "export/backends/": RUNTIME | TORCH | {"onnx", "onnx_ir", "onnxscript", "onnxruntime"},
    "export/backends/coreml": RUNTIME | TORCH | {"coremltools"},
    "export/backends/tflite": RUNTIME | TORCH | {"ai_edge_litert", "flatbuffers", "litert_torch"},
    # The records: the command line reads them before it has torch.
    "export/backends/__init__.py": set(),
    "export/backends/backend.py": set(),
    "export/backends/lazy.py": set(),
    "export/backends/activation_choice.py": set(),
    "export/artifact.py": set(),
    **{
        f"export/backends/{format}/{name}.py": set()
        for format in ("coreml", "onnx", "tflite")
        for name in ("__init__", "activations", "refusals")
    },
    "export/backends/intermediate_outputs.py": RUNTIME,
    "export/backends/onnx/intermediate_outputs.py": RUNTIME | {"onnx_ir"},
    "export/backends/coreml/intermediate_outputs.py": RUNTIME,
    "export/backends/tflite/intermediate_outputs.py": RUNTIME | {"ai_edge_litert"},
    "export/backends/tflite/fp16_emulation.py": RUNTIME | {"ai_edge_litert"},
    "export/targets/": {"pydantic", "pydantic_core"},
    "pocketdiffusion/": set(),
    "pocketdiffusion/cli/": {"typer"},
    "pocketdiffusion/reports/compare.py": {"jinja2"},
    "pocketdiffusion/demo.py": {"rich", "torch"},
    "pocketdiffusion/cli/arguments.py": {"PIL"},
    "pocketdiffusion/reports/page.py": {"PIL", "jinja2", "markupsafe", "numpy"},
    "pocketdiffusion/reports/plots.py": {"matplotlib"},
    "pocketdiffusion/reports/export.py": {"PIL", "jinja2", "numpy"},
    "pocketdiffusion/cli/tables.py": {"rich"},
    "pocketdiffusion/cli/console.py": {"rich"},
    "pocketdiffusion/models/": TORCH | {"PIL", "numpy", "safetensors"},
}
NEEDS_EXPORT = (
    *TORCH,
    "coremltools",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "litert_torch",
    "huggingface_hub",
    "safetensors",
    "jinja2",
    "matplotlib",
    "psutil",
)

BLOCKED = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
runpy.run_module("pocketdiffusion", run_name="__main__")
"""


def sources(root: Path) -> Iterator[Path]:
    """Every module, once: the links in pocketdiffusion/ stand for the rooms."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            if room != "pocketdiffusion" or path.relative_to(root / room).parts[0] not in ROOMS:
                yield path


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of whatever is imported, wherever in the file. A relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def complaint(path: str, name: str) -> str | None:
    """What is wrong with the file at `path` importing `name`, or None."""
    room, (top, _, rest) = path.split("/")[0], name.partition(".")
    if top == "pocketdiffusion":
        other = rest.split(".")[0]
        other = other if other in ROOMS else "pocketdiffusion" if other else room
        return None if other in BELOW[room] else f"{room} may not import {other}"
    libraries = LIBRARIES[max((prefix for prefix in LIBRARIES if path.startswith(prefix)), key=len)]
    return None if top in libraries | sys.stdlib_module_names else f"{top or name} is none of its libraries"


def violations(root: Path) -> list[str]:
    found = []
    for source in sources(root):
        path = source.relative_to(root).as_posix()
        for line, name in imported(ast.parse(source.read_text(encoding="utf-8"))):
            wrong = complaint(path, name)
            if wrong:
                found.append(f"{path}:{line}: {wrong} ({name})")
    return found


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


def test_every_module_is_looked_at() -> None:
    seen = {path.relative_to(ROOT).as_posix() for path in sources(ROOT)}
    for path in ("pocketdiffusion/build.py", "pocketdiffusion/models/emoji/train.py", "export/checkpoints/folder.py"):
        assert path in seen
    assert "runtime/engines/onnx.py" in seen and "pocketdiffusion/runtime/engines/onnx.py" not in seen


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("runtime/noise.py", "import torch"),
        ("runtime/noise.py", "def late() -> None:\n    import torch.nn.functional as F"),
        ("runtime/noise.py", "import onnxruntime"),
        ("runtime/noise.py", "from safetensors.numpy import load_file"),
        ("runtime/noise.py", "from pocketdiffusion import export"),
        ("runtime/noise.py", "from pocketdiffusion.export.targets import load_target"),
        ("runtime/noise.py", "import pocketdiffusion.build"),
        ("runtime/engines/onnx.py", "import onnx"),
        ("runtime/engines/mlprogram/program.py", "import coremltools"),
        ("runtime/engines/mlprogram/execute.py", "import torch"),
        ("runtime/engines/tflite.py", "import litert_torch"),
        ("export/backends/onnx/emit.py", "import litert_torch"),
        ("runtime/samplers/new.py", "from ..export import layout"),
        ("export/targets/__init__.py", "import torch"),
        ("export/bundle_writer.py", "from pocketdiffusion import cli"),
        ("export/bundle_writer.py", "from pocketdiffusion.reports.export import Report"),
        ("export/bundle_writer.py", "import jinja2"),
        ("pocketdiffusion/cli/app.py", "import click"),
        ("pocketdiffusion/build.py", "import torch"),
        ("quantize/float16_range.py", "from pocketdiffusion.export.component import Component"),
        ("quantize/float16_range.py", "import torch"),
        ("runtime/devices/stamp.py", "from pocketdiffusion.tools.packages import packages_of"),
        ("tools/install.py", "from pocketdiffusion.export.targets import load_target"),
        ("tools/install.py", "import requests"),
        ("quantize/recipe.py", "import torch"),
        ("quantize/measure/sensitivity.py", "import diffusers"),
    ],
)
def test_a_planted_import_is_found(path: str, line: str, tmp_path: Path) -> None:
    for room in ROOMS:
        if (ROOT / room).is_dir():
            keep = shutil.ignore_patterns("*.safetensors", "__pycache__", *(ROOMS if room == "pocketdiffusion" else ()))
            shutil.copytree(ROOT / room, tmp_path / room, ignore=keep)
    planted = tmp_path / path
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")
    (found,) = violations(tmp_path)
    assert found.startswith(f"{path}:")


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line where nothing of the export extra can be imported."""
    program = BLOCKED.format(names=set(NEEDS_EXPORT))
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_bundles_are_read_without_the_export_extra(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    for arguments in (
        ("targets",),
        ("inspect", bundle),
        ("verify", bundle),
        ("generate", bundle, "red apple", "--steps", "2", "-o", tmp_path / "out.png"),
    ):
        done = call(*arguments)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").is_file()


def test_what_needs_the_export_extra_says_so(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """This also proves that the block of the test above works."""
    for arguments in (
        ("export", tiny_checkpoint, "--target", "generic", "-o", tmp_path / "out"),
        ("inspect", tiny_checkpoint),
        ("verify", tiny_bundle, "--against", tiny_checkpoint),
    ):
        done = call(*arguments)
        assert done.returncode == 2 and "pip install 'pocketdiffusion[export]'" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
