"""Names of formats and of graphs stand as literals in their own rooms only: elsewhere code asks the backend's record,
the engine's facts or the family's program."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layering import ROOT, sources

from pocketdiffusion.export.backends import backend_names

GRAPHS = {"text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder", "controlnet"}
# A path that begins so may have the names.
FORMATS_AT = ("export/backends/", "runtime/engines/")
GRAPHS_AT = (
    "export/families/",
    "export/backends/onnx/optimum_layout.py",
    "export/backends/coreml/apple",
    "pocketdiffusion/models/",  # the built-in model's training, which writes its checkpoint
)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each text of the code that is no prose: line and text. Docstrings and texts with a space are passed over; in an
    f-string, each part between fields is a text."""
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if " " not in node.value:
                yield node.lineno, node.value


def named(text: str, names: set[str]) -> bool:
    """Tell whether `text` is one of `names`, or a path or dotted name with one of them in it."""
    return any(piece in names for piece in text.replace("/", ".").split("."))


def found(root: Path, names: set[str], allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{path}:{line}: {text!r}"
        for source in sources(root)
        if not (path := source.relative_to(root).as_posix()).startswith(allowed)
        for line, text in literals(ast.parse(source.read_text(encoding="utf-8")))
        if named(text, names)
    ]


def test_formats_are_named_in_backends_and_engines_only() -> None:
    assert found(ROOT, set(backend_names()), FORMATS_AT) == []


def test_graphs_are_named_in_families_and_in_the_tables_of_other_pipelines_only() -> None:
    assert found(ROOT, GRAPHS, GRAPHS_AT) == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ('x = format == "onnx"', 1),
        ('x = folder / "onnx/tokenizer"', 1),
        ('x = "pocketdiffusion.runtime.engines.tflite"', 1),
        ('x = f"{folder}/coreml/{name}"', 1),
        ('def f():\n    """onnx"""\n    return "an onnx file"', 0),
        ('x = "onnxruntime"', 0),
    ],
)
def test_a_planted_literal_is_found(code: str, lines: int, tmp_path: Path) -> None:
    (tmp_path / "quantize").mkdir()
    (tmp_path / "quantize/new.py").write_text(code)
    assert len(found(tmp_path, set(backend_names()), FORMATS_AT)) == lines
