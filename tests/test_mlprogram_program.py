"""The executor on small programs that coremltools' own builder writes, and the blob file, byte by byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketdiffusion.export.backends.coreml.memory import count_memory
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.runtime.engines.mlprogram.constants import HEADER, SENTINEL, Blob, TensorType, decode, read_blob
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.program import Program, read_program
from pocketdiffusion.runtime.engines.mlprogram.rounding import round_half
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.runner import Array

HOME = "Data/com.apple.CoreML"


def build(folder: Path, body: Callable[[Any, Any], Any], *shape: int, half: bool = True) -> Path:
    """A package of the program `body(mb, x)` for iOS 18."""
    mb = ct.converters.mil.Builder

    @mb.program(input_specs=[mb.TensorSpec(shape=shape)], opset_version=ct.target.iOS18)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return body(mb, x)

    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(folder / "part.mlpackage"))
    return folder / "part.mlpackage"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(x * x) @ w in float16, with a weight in the blob file."""
    weight = np.arange(64, dtype=np.float32).reshape(8, 8) / 64

    def body(mb: Any, x: Any) -> Any:
        return mb.matmul(x=mb.mul(x=x, y=x, name="squared"), y=weight)

    return build(tmp_path_factory.mktemp("squares"), body, 2, 8)


def test_an_overflow_shows_where_it_happens(squares: Path) -> None:
    program = read_program(squares)
    x = np.zeros((2, 8), np.float32)
    x[0, 3] = 300
    seen: list[str] = []

    def observe(operation: Any, name: str, value: Any) -> None:
        if not np.isfinite(value).all():
            seen.append(f"{operation.kind} {name}")

    (half,) = run(program, {"x": x}, "float16", observe).values()
    assert seen[0].startswith("mul squared") and np.isinf(half[0]).any() and np.isfinite(half[1]).all()
    (full,) = run(program, {"x": x}, "float32").values()
    assert np.isfinite(full).all() and full[0, 7] == 90000 * (31 / 64)


def test_half_arithmetic_rounds_every_result(squares: Path) -> None:
    program = read_program(squares)
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)

    def observe(operation: Any, name: str, value: Any) -> None:
        (declared,) = (result.type.dtype for result in operation.results)
        assert value.dtype == np.float32
        assert declared == "FLOAT32" or np.array_equal(value, round_half(value))

    (found,) = run(program, {"x": x}, "float16", observe).values()
    weight = round_half(np.arange(64, dtype=np.float32).reshape(8, 8) / 64)
    assert np.array_equal(found, round_half(round_half(round_half(x) ** 2) @ weight))


def test_rounding_is_numpys() -> None:
    """Bit by bit: every float16, what lies halfway between two, its neighbours, and arbitrary bits."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    ordered = np.sort(halves[np.isfinite(halves)])
    middles = (ordered[1:] + ordered[:-1]) / 2  # exact in float32
    near = [np.nextafter(middles, np.float32(side)) for side in (-np.inf, np.inf)]
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32).view(np.float32)
    likely, turned = random[np.abs(random) < 65519], ordered[:1024].reshape(-1, 2).T
    arrays: list[Array] = [halves, ordered, middles, *near, random, likely, turned]
    with np.errstate(all="ignore"):
        for x in arrays:
            wanted = x.astype(np.float16).astype(np.float32)
            assert np.array_equal(round_half(x), wanted, equal_nan=True)
            assert np.array_equal(np.signbit(round_half(x)), np.signbit(wanted))


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    package = build(tmp_path, lambda mb, x: mb.cumsum(x=x, axis=1, name="adding_up"), 2, 8)
    program = read_program(package)
    with pytest.raises(ProofError, match=r"operator cumsum \(adding_up.*\) is unknown"):
        run(program, {"x": np.zeros((2, 8), np.float32)}, "float16")


def test_control_flow_is_refused(tmp_path: Path) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.cond(
            pred=mb.cast(x=mb.squeeze(x=x), dtype="bool"),
            _true_fn=lambda: mb.add(x=x, y=np.float32(1)),
            _false_fn=lambda: mb.sub(x=x, y=np.float32(1)),
        )

    with pytest.raises(ProofError, match="cond contains blocks"):
        read_program(build(tmp_path, body, 1))


def test_inputs_of_another_shape(squares: Path) -> None:
    with pytest.raises(ProofError, match=r"x has the shape \[2, 7\], and the program declares \[2, 8\]"):
        run(read_program(squares), {"x": np.zeros((2, 7), np.float32)}, "float32")


def test_a_shape_that_the_program_does_not_declare(squares: Path) -> None:
    program = read_program(squares)
    first, *rest = program.operations
    result = first.results[0].__class__(first.results[0].name, TensorType("FLOAT16", (2, 9)))
    wrong = Program(
        program.opset,
        program.inputs,
        program.outputs,
        (first.__class__(first.kind, first.arguments, (result,)), *rest),
    )
    with pytest.raises(ProofError, match=r"declares \[2, 9\]"):
        run(wrong, {"x": np.zeros((2, 8), np.float32)}, "float32")


def test_values_are_dropped_after_their_last_use(tmp_path: Path) -> None:
    """A chain of 24 results of 1 MB needs a few of them at once."""
    import tracemalloc

    def body(mb: Any, x: Any) -> Any:
        for _ in range(24):
            x = mb.tanh(x=x)
        return x

    program = read_program(build(tmp_path, body, 512, 512, half=False))
    tracemalloc.start()
    run(program, {"x": np.zeros((512, 512), np.float32)}, "float32")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


def test_memory_is_counted_from_the_program(squares: Path) -> None:
    """x in float32, cast to float16, squared, multiplied, cast back; the weight is float16."""
    memory = count_memory(squares)
    assert memory.weights_bytes == 2 * 8 * 8 + 2  # with two flags of the product
    assert memory.activations_bytes == 4 * 16 + 2 * 16 + 4 * 16  # x, the product, and that in float32


def test_no_package(tmp_path: Path, squares: Path) -> None:
    with pytest.raises(ProofError, match="this is not a package of an ML program"):
        read_program(tmp_path)
    (tmp_path / HOME).mkdir(parents=True)
    raw = (squares / HOME / "model.mlmodel").read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], b"\0" + raw):
        (tmp_path / HOME / "model.mlmodel").write_bytes(damaged)
        with pytest.raises(ProofError):
            read_program(tmp_path)


def test_without_coremltools(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketdiffusion.runtime.engines.mlprogram.program.find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "pocketdiffusion_coremltools_proto", raising=False)
    with pytest.raises(UserError, match="pip install coremltools"):
        read_program(squares)


def test_a_weight_file_cut_short(squares: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(squares, tmp_path / "copy.mlpackage")
    weights = copy / HOME / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ProofError, match="64 bytes, and FLOAT16.8, 8. has 128"):
        run(read_program(copy), {"x": np.zeros((2, 8), np.float32)}, "float32")


def blob(folder: Path, raw: bytes, sentinel: int = SENTINEL) -> Path:
    """One record at byte 64, its data at byte 128."""
    file = folder / "weight.bin"
    header = np.array([(sentinel, 1, len(raw), 128)], HEADER).tobytes()
    file.write_bytes(bytes(64) + header.ljust(64, b"\0") + raw)
    return file


def test_read_blob(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16)
    file = blob(tmp_path, values.tobytes())
    found = read_blob(Blob(file, 64, TensorType("FLOAT16", (2, 3))))
    assert found.dtype == np.float16 and np.array_equal(found, values.reshape(2, 3))
    with pytest.raises(ProofError, match="12 bytes, and FLOAT16.* has 14"):
        read_blob(Blob(file, 64, TensorType("FLOAT16", (7,))))
    for offset in (0, 128, 4096):
        with pytest.raises(ProofError, match=f"no constant begins at byte {offset}"):
            read_blob(Blob(file, offset, TensorType("FLOAT16", (6,))))


@pytest.mark.parametrize(
    ("dtype", "raw", "values"),
    [
        ("UINT1", [0b10110001, 0b1], [1, 0, 0, 0, 1, 1, 0, 1, 1]),
        ("UINT2", [0b11_10_01_00, 0b01], [0, 1, 2, 3, 1]),
        ("UINT3", [0x88, 0xC6, 0xFA], [0, 1, 2, 3, 4, 5, 6, 7]),
        ("UINT4", [0x10, 0x32, 0x0F], [0, 1, 2, 3, 15]),
        ("INT4", [0x10, 0x7F, 0x08], [0, 1, -1, 7, -8]),
        ("UINT6", [0x81, 0x30, 0xFD], [1, 2, 19, 63]),
        ("INT8", [0xFF, 0x7F], [-1, 127]),
        ("UINT16", [0xFF, 0xFF, 1, 0], [65535, 1]),
        ("BOOL", [1, 0], [True, False]),
    ],
)
def test_numbers_of_few_bits(dtype: str, raw: list[int], values: list[int]) -> None:
    found = decode(np.array(raw, np.uint8), TensorType(dtype, (len(values),)), "here")
    assert found.tolist() == values


def test_a_data_type_that_we_do_not_know() -> None:
    with pytest.raises(ProofError, match="FLOAT8E4M3FN"):
        decode(np.zeros(1, np.uint8), TensorType("FLOAT8E4M3FN", (1,)), "here")
