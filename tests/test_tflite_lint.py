from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tflite_files import Value, write_tflite

from pocketdiffusion.export.backends.tflite.file import read_model, write_model
from pocketdiffusion.export.backends.tflite.lint import lint
from pocketdiffusion.runtime.errors import ProofError

X, Y = Value("x"), Value("y")
HALF = Value("half", dtype="FLOAT16", data=np.ones(4, np.float16))
SINGLE = Value("single", data=np.ones(4, np.float32))


def test_counts_operators(tmp_path: Path) -> None:
    values = (X, HALF, Value("wide"), Value("z"), Y)
    operators = [("DEQUANTIZE", "half", "wide"), ("MUL", "x wide", "z"), ("MUL", "z wide", "y")]
    assert lint(write_tflite(tmp_path / "part.tflite", values, operators, "part")) == {"DEQUANTIZE": 1, "MUL": 2}


@pytest.mark.parametrize(
    ("values", "operator", "message"),
    [
        (
            (X, Value("y", (1, 1, 1, 2, 2))),
            ("LOGISTIC", "x", "y"),
            "tensor y of LOGISTIC has rank 5, and phones support at most 4",
        ),
        ((Value("x", (1, 1, 1, 1, 4)), Y), ("LOGISTIC", "x", "y"), "tensor x has rank 5"),
        ((X, Value("y", dtype="INT64")), ("ARG_MAX", "x", "y"), "tensor y of ARG_MAX is int64"),
        ((X, Value("y", dtype="FLOAT64")), ("CAST", "x", "y"), "tensor y of CAST is float64"),
        ((X, Y), ("BROADCAST_TO", "x", "y"), "BROADCAST_TO, which computes y, is an operator that phones do not have"),
        ((X, Y), ("CUSTOM", "x", "y"), "CUSTOM, which computes y, is an operator that"),
        ((X, Y), ("STABLEHLO_COMPOSITE", "x", "y"), "STABLEHLO_COMPOSITE, which computes y, is an operator that"),
        ((HALF, Y), ("CAST", "half", "y"), "CAST, which computes y, works on the constant half at every call"),
        ((SINGLE, Y), ("TRANSPOSE", "single", "y"), "TRANSPOSE, which computes y, works on the constant single"),
        (
            (Value("x", dtype="FLOAT16"), Y),
            ("DEQUANTIZE", "x", "y"),
            "DEQUANTIZE, which computes y, works on x, which is",
        ),
    ],
)
def test_a_planted_violation(
    tmp_path: Path, values: tuple[Value, ...], operator: tuple[str, str, str], message: str
) -> None:
    path = write_tflite(tmp_path / "part.tflite", values, [operator], "part")
    with pytest.raises(ProofError, match=f"^part.tflite: {message}"):
        lint(path)


CODES = np.ones((3, 4), np.int8)
WEIGHT = Value("w", (3, 4), "INT8", CODES, (0.5, 0.25, 2), (0, 0, 0))
TAKEN = Value("taken", (1, 4), "INT8", scales=(0.5,), zeros=(-3,))
GIVEN = Value("given", (1, 3), "INT8", scales=(0.5,))
BIAS = Value("b", (3,), "INT32", np.ones(3, np.int32), (0.25, 0.125, 1), (0, 0, 0))
INTEGERS = [("QUANTIZE", "x", "taken"), ("FULLY_CONNECTED", "taken w b", "given"), ("DEQUANTIZE", "given", "y")]
ENDS = (Value("x"), Value("y", (1, 3)))


def test_an_operator_in_integers(tmp_path: Path) -> None:
    values = (*ENDS, WEIGHT, TAKEN, GIVEN, BIAS)
    counts = lint(write_tflite(tmp_path / "part.tflite", values, INTEGERS, "part"))
    assert counts == {"DEQUANTIZE": 1, "FULLY_CONNECTED": 1, "QUANTIZE": 1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (replace(WEIGHT, scales=(0.5, 0.25)), "tensor w has 2 scales and 3 zero points for 3 channels along axis 0"),
        (replace(WEIGHT, axis=1), "tensor w has 3 scales and 3 zero points for 4 channels along axis 1"),
        (replace(WEIGHT, scales=(0.5, 0.25, 0)), "tensor w has a scale that is not positive"),
        (replace(WEIGHT, scales=(0.5, 0.25, np.nan)), "tensor w has a scale that is not positive"),
        (replace(WEIGHT, zeros=(0, 1, 0)), "tensor w is a weight whose zero point is not 0"),
        (replace(WEIGHT, scales=()), "tensor w is int8 and has no scale"),
        (replace(TAKEN, scales=()), "tensor taken of QUANTIZE is int8 and has no scale"),
        (replace(TAKEN, scales=(0.25,)), "FULLY_CONNECTED, which computes given, adds b in other units than"),
        (replace(BIAS, scales=(0.25, 0.125, 0.5)), "FULLY_CONNECTED, which computes given, adds b in other units than"),
        (
            replace(ENDS[0], dtype="INT8", scales=(1.0,)),
            "tensor x is int8: inputs and outputs of a graph are float32",
        ),
        (replace(ENDS[1], dtype="INT8", scales=(1.0,)), "tensor y of DEQUANTIZE is int8: inputs and outputs"),
        (
            Value("b", (3,), data=np.ones(3, np.float32)),
            "FULLY_CONNECTED, which computes given, adds b, which is float32",
        ),
        (replace(ENDS[0], scales=(1.0,)), "tensor x has a scale and is float32"),
    ],
)
def test_a_wrong_quantization(tmp_path: Path, changed: Value, message: str) -> None:
    values = [changed if changed.name == v.name else v for v in (*ENDS, WEIGHT, TAKEN, GIVEN, BIAS)]
    path = write_tflite(tmp_path / "part.tflite", values, INTEGERS, "part")
    with pytest.raises(ProofError, match=f"^part.tflite: {message}"):
        lint(path)


def test_a_weight_that_got_lost(tmp_path: Path) -> None:
    operators = [("DEQUANTIZE", "half", "wide"), ("MUL", "x wide", "y")]
    path = write_tflite(tmp_path / "part.tflite", (X, HALF, Value("wide"), Y), operators, "part")
    model = read_model(path)
    (lost,) = (tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"half")
    lost.buffer = 0
    write_model(model, path)
    with pytest.raises(ProofError, match="DEQUANTIZE, which computes wide, reads half, which has no value"):
        lint(path)


def test_what_is_computed_may_be_cast_and_turned(tmp_path: Path) -> None:
    operators = [("CAST", "x", "z"), ("TRANSPOSE", "z", "y")]
    path = write_tflite(tmp_path / "part.tflite", (X, Value("z"), Y), operators, "part")
    assert lint(path) == {"CAST": 1, "TRANSPOSE": 1}
