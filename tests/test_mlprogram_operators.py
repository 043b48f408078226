"""Every operator of the executor against torch, called as a program calls it: floats as float32, the rest as arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketdiffusion.runtime.engines.mlprogram.operators import MOVES, OPERATORS

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


X = normal(2, 6, 5, 4)
Y = normal(2, 6, 5, 4)
T = {"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}
ONE = np.float32(1)

# operator, its arguments, what torch makes of them
CASES: list[tuple[str, Mapping[str, Any], Callable[[], torch.Tensor]]] = [
    ("add", {"x": X, "y": Y}, lambda: T["x"] + T["y"]),
    ("add", {"x": X, "y": np.array(2, np.float32)}, lambda: T["x"] + 2),
    ("sub", {"x": X, "y": Y}, lambda: T["x"] - T["y"]),
    ("mul", {"x": X, "y": Y[:, :1]}, lambda: T["x"] * T["y"][:, :1]),
    ("real_div", {"x": X, "y": Y}, lambda: T["x"] / T["y"]),
    ("pow", {"x": np.abs(X), "y": np.array(1.7, np.float32)}, lambda: T["x"].abs() ** 1.7),
    ("equal", {"x": ints(1, 2, 3), "y": ints(1, 0, 3)}, lambda: torch.tensor([True, False, True])),
    ("greater_equal", {"x": ints(1, 2, 3), "y": ints(2, 2, 2)}, lambda: torch.tensor([False, True, True])),
    ("sqrt", {"x": np.abs(X)}, lambda: T["x"].abs().sqrt()),
    ("square", {"x": X}, lambda: T["x"].square()),
    ("sin", {"x": 100 * X}, lambda: torch.sin(100 * T["x"])),
    ("cos", {"x": 100 * X}, lambda: torch.cos(100 * T["x"])),
    ("exp", {"x": 10 * X}, lambda: (10 * T["x"]).exp()),
    ("maximum", {"x": X, "y": Y[:, :1]}, lambda: torch.maximum(T["x"], T["y"][:, :1])),
    ("tanh", {"x": X}, lambda: T["x"].tanh()),
    ("sigmoid", {"x": 50 * X}, lambda: (50 * T["x"]).sigmoid()),
    ("silu", {"x": 50 * X}, lambda: F.silu(50 * T["x"])),
    ("gelu", {"x": 3 * X}, lambda: F.gelu(3 * T["x"])),
    ("gelu", {"x": 3 * X, "mode": "EXACT"}, lambda: F.gelu(3 * T["x"])),
    ("gelu", {"x": 3 * X, "mode": "TANH_APPROXIMATION"}, lambda: F.gelu(3 * T["x"], approximate="tanh")),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}, lambda: T["x"] * torch.sigmoid(1.702 * T["x"])),
    ("softmax", {"x": 30 * X, "axis": np.array(-1)}, lambda: F.softmax(30 * T["x"], -1)),
    ("softmax", {"x": X, "axis": np.array(1)}, lambda: F.softmax(T["x"], 1)),
    ("cast", {"x": X, "dtype": "fp32"}, lambda: T["x"]),
    ("select", {"cond": X > 0, "a": X, "b": Y}, lambda: torch.where(T["x"] > 0, T["x"], T["y"])),
    ("reduce_mean", {"x": X, "axes": ints(2, -1), "keep_dims": np.array(True)}, lambda: T["x"].mean((2, 3), True)),
    ("reduce_mean", {"x": X, "axes": ints(1)}, lambda: T["x"].mean(1)),
    ("reduce_max", {"x": X, "axes": ints(2, -1), "keep_dims": np.array(True)}, lambda: T["x"].amax((2, 3), True)),
    ("reduce_max", {"x": X, "axes": ints(1)}, lambda: T["x"].amax(1)),
    ("reduce_argmax", {"x": X, "axis": np.array(1)}, lambda: T["x"].argmax(1)),
    ("reduce_argmax", {"x": ints(1, 3, 3), "output_dtype": "int32"}, lambda: torch.tensor(1)),
    (
        "layer_norm",
        {"x": X, "axes": ints(-1), "gamma": Y[0, 0, 0], "beta": Y[0, 0, 1], "epsilon": np.array(1e-5, np.float32)},
        lambda: F.layer_norm(T["x"], [4], T["y"][0, 0, 0], T["y"][0, 0, 1]),
    ),
    ("layer_norm", {"x": X, "axes": ints(2, 3)}, lambda: F.layer_norm(T["x"], [5, 4])),
    (
        "batch_norm",
        {"x": X, "mean": Y[0, :, 0, 0], "variance": Y[0, :, 0, 1] ** 2, "gamma": Y[1, :, 0, 0], "beta": Y[1, :, 1, 1]},
        lambda: F.batch_norm(
            T["x"], T["y"][0, :, 0, 0], T["y"][0, :, 0, 1] ** 2, T["y"][1, :, 0, 0], T["y"][1, :, 1, 1]
        ),
    ),
    # matrices
    ("linear", {"x": X, "weight": Y[0, 0]}, lambda: F.linear(T["x"], T["y"][0, 0])),
    (
        "linear",
        {"x": X, "weight": Y[0, 0], "bias": Y[0, 1, :, 0]},
        lambda: F.linear(T["x"], T["y"][0, 0], T["y"][0, 1, :, 0]),
    ),
    ("matmul", {"x": X, "y": Y, "transpose_y": np.array(True)}, lambda: T["x"] @ T["y"].mT),
    ("matmul", {"x": X, "y": Y, "transpose_x": np.array(True)}, lambda: T["x"].mT @ T["y"]),
    ("matmul", {"x": X, "y": Y[0, 0].T}, lambda: T["x"] @ T["y"][0, 0].T),
    (
        "scaled_dot_product_attention",
        {"query": X, "key": Y, "value": Y},
        lambda: F.scaled_dot_product_attention(T["x"], T["y"], T["y"]),
    ),
    (
        "scaled_dot_product_attention",
        {"query": X, "key": Y, "value": X, "attn_mask": np.tri(5, dtype=bool)},
        lambda: F.scaled_dot_product_attention(T["x"], T["y"], T["x"], is_causal=True),
    ),
    (
        "scaled_dot_product_attention",
        {"query": X, "key": Y, "value": X, "attn_mask": Y[:, :, :, :1] * np.ones(5, np.float32)},
        lambda: F.scaled_dot_product_attention(T["x"], T["y"], T["x"], T["y"][:, :, :, :1].expand(2, 6, 5, 5)),
    ),
    *(
        (
            "einsum",
            {"values": [X, Y], "equation": equation},
            lambda equation=equation: torch.einsum(equation, T["x"], T["y"]),
        )
        for equation in ("bchq,bchk->bhqk", "bchq,bckq->bcqhk")
    ),
    (
        "einsum",
        {"values": [X.transpose(0, 3, 2, 1), Y.transpose(0, 1, 2, 3)], "equation": "bchq,bkhc->bkhq"},
        lambda: torch.einsum("bchq,bkhc->bkhq", T["x"].permute(0, 3, 2, 1), T["y"]),
    ),
    # elements that move
    ("reshape", {"x": X, "shape": ints(0, 2, -1, 4)}, lambda: T["x"].reshape(2, 2, 15, 4)),
    ("transpose", {"x": X, "perm": ints(0, -2, -1, 1)}, lambda: T["x"].permute(0, 2, 3, 1)),
    ("expand_dims", {"x": X, "axes": ints(-1, 0)}, lambda: T["x"][None, ..., None]),
    ("squeeze", {"x": X[:, :1, :1], "axes": ints(1)}, lambda: T["x"][:, 0, :1]),
    ("squeeze", {"x": X[:, :1, :1]}, lambda: T["x"][:, 0, 0]),
    ("concat", {"values": [X, Y], "axis": np.array(1)}, lambda: torch.cat([T["x"], T["y"]], 1)),
    (
        "concat",
        {"values": [X, Y], "axis": np.array(-1), "interleave": np.array(True)},
        lambda: torch.stack([T["x"], T["y"]], -1).flatten(-2),
    ),
    ("stack", {"values": [X, Y], "axis": np.array(-1)}, lambda: torch.stack([T["x"], T["y"]], -1)),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": ints(0, 1, 0, -1),
            "end": ints(2, -1, 0, 0),
            "end_mask": np.array([False, False, True, False]),
        }
        | {"stride": ints(1, 2, 2, 1), "squeeze_mask": np.array([False, False, False, True])},
        lambda: T["x"][:, 1:-1:2, ::2, -1],
    ),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": ints(9, 3, 0, 0),
            "end": ints(9, 6, 5, 4),
            "begin_mask": np.array([True, False, False, False]),
        },
        lambda: T["x"][:9, 3:],
    ),
    ("gather", {"x": X, "indices": ints(3, -1, 0), "axis": np.array(1)}, lambda: T["x"][:, [3, -1, 0]]),
    ("gather", {"x": X, "indices": np.array([[1, 0]], np.uint16), "axis": np.array(0)}, lambda: T["x"][[1, 0]][None]),
    ("gather_nd", {"x": X, "indices": np.array([[0, 2], [1, 5]])}, lambda: T["x"][[0, 1], [2, 5]]),
    ("pad", {"x": X, "pad": ints(0, 1, 2, 0), "mode": "constant"}, lambda: F.pad(T["x"], (2, 0, 0, 1))),
    (
        "pad",
        {"x": X, "pad": ints(0, 0, 0, 0, 1, 2, 0, 3), "constant_val": ONE},
        lambda: F.pad(T["x"], (0, 3, 1, 2), value=1),
    ),
    ("pad", {"x": X, "pad": ints(1, 1, 2, 0), "mode": "reflect"}, lambda: F.pad(T["x"], (2, 0, 1, 1), "reflect")),
    ("pad", {"x": X, "pad": ints(1, 1, 2, 0), "mode": "replicate"}, lambda: F.pad(T["x"], (2, 0, 1, 1), "replicate")),
    (
        "upsample_nearest_neighbor",
        {"x": X, "scale_factor_height": np.array(2.0), "scale_factor_width": np.array(3)},
        lambda: F.interpolate(T["x"], scale_factor=(2, 3)),
    ),
]


@pytest.mark.parametrize(("kind", "arguments", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_as_torch(kind: str, arguments: Mapping[str, Any], wanted: Callable[[], torch.Tensor]) -> None:
    with np.errstate(over="ignore"):
        found, reference = OPERATORS[kind](**arguments), wanted().numpy()
    assert found.shape == reference.shape and found.dtype != np.float64
    if kind in MOVES or reference.dtype != np.float32:
        assert np.array_equal(found, reference)
    else:
        np.testing.assert_allclose(found, reference, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [{"num_splits": np.array(3)}, {"split_sizes": ints(1, 3, 2)}])
def test_split(sizes: dict[str, Any]) -> None:
    parts = OPERATORS["split"](x=X, axis=np.array(1), **sizes)
    wanted = torch.split(T["x"], [2, 2, 2] if "num_splits" in sizes else [1, 3, 2], 1)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(parts, wanted, strict=True))


@pytest.mark.parametrize(
    ("kernel", "strides", "pad", "dilations", "groups"),
    [
        ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
        ((3, 3), (2, 2), (0, 1, 0, 1), (1, 1), 1),
        ((3, 2), (1, 2), (2, 0, 1, 3), (2, 1), 1),
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
    ],
)
@pytest.mark.parametrize("columns", [1 << 24, 100])
def test_conv(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pad: tuple[int, ...],
    dilations: tuple[int, int],
    groups: int,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole, and some rows at a time."""
    monkeypatch.setattr("pocketdiffusion.runtime.engines.mlprogram.linear.COLUMNS", columns)
    x, weight, bias = normal(2, 6, 9, 8), normal(12, 6 // groups, *kernel), normal(12)
    top, bottom, left, right = pad
    padded = F.pad(torch.from_numpy(x), (left, right, top, bottom))
    tensors = (torch.from_numpy(weight), torch.from_numpy(bias))
    reference = F.conv2d(padded, *tensors, stride=strides, dilation=dilations, groups=groups).numpy()
    options = {"strides": ints(*strides), "dilations": ints(*dilations), "groups": np.array(groups)}
    found = OPERATORS["conv"](x=x, weight=weight, bias=bias, pad_type="custom", pad=ints(*pad), **options)
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5)


def test_conv_pads_by_its_type() -> None:
    x, weight = normal(1, 3, 9, 8), normal(4, 3, 3, 3)
    tensors = (torch.from_numpy(x), torch.from_numpy(weight))
    for kind, reference in (
        ("valid", F.conv2d(*tensors)),
        ("same", F.conv2d(*tensors, padding="same")),
        ("same_lower", F.conv2d(*tensors, padding="same")),
    ):
        found = OPERATORS["conv"](x=x, weight=weight, pad_type=kind)
        np.testing.assert_allclose(found, reference.numpy(), rtol=1e-5, atol=1e-5)
    strided = {"strides": ints(2, 2), "x": normal(1, 3, 8, 8), "weight": weight}
    after = F.conv2d(F.pad(torch.from_numpy(strided["x"]), (0, 1, 0, 1)), tensors[1], stride=2).numpy()
    before = F.conv2d(F.pad(torch.from_numpy(strided["x"]), (1, 0, 1, 0)), tensors[1], stride=2).numpy()
    np.testing.assert_allclose(OPERATORS["conv"](pad_type="same", **strided), after, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(OPERATORS["conv"](pad_type="same_lower", **strided), before, rtol=1e-5, atol=1e-5)


def test_gelu_far_out_and_at_infinity() -> None:
    """An overflow must not be hidden: infinity stays infinite, and what is no number stays none."""
    x = np.array([-1e4, -7, -6.01, 0, 6.01, 7, 1e4], np.float32)
    np.testing.assert_allclose(OPERATORS["gelu"](x=x), F.gelu(torch.from_numpy(x)).numpy(), atol=1e-6)
    high, none = OPERATORS["gelu"](x=np.array([np.inf, np.nan], np.float32))
    assert np.isposinf(high) and np.isnan(none)


DATA = rng.integers(-8, 8, (4, 6), dtype=np.int8)
SCALE, ZERO = np.abs(normal(4)), rng.integers(-8, 8, 4, dtype=np.int8)


def test_affine_dequantize() -> None:
    found = OPERATORS["constexpr_affine_dequantize"](
        quantized_data=DATA, zero_point=ZERO, scale=SCALE, axis=np.array(0)
    )
    np.testing.assert_allclose(found, (DATA.astype(np.float32) - ZERO[:, None]) * SCALE[:, None], rtol=1e-6)
    one = OPERATORS["constexpr_affine_dequantize"](
        quantized_data=DATA, zero_point=ZERO[0], scale=SCALE[0], axis=np.array(1)
    )
    np.testing.assert_allclose(one, (DATA.astype(np.float32) - ZERO[0]) * SCALE[0], rtol=1e-6)


def test_blockwise_shift_scale() -> None:
    scale, offset = np.abs(normal(4, 3)), rng.integers(-8, 8, (1, 2), dtype=np.int8)
    found = OPERATORS["constexpr_blockwise_shift_scale"](data=DATA, scale=scale, offset=offset)
    wanted = (DATA.astype(np.float32) - offset.repeat(3, 1)) * scale.repeat(2, 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    plain = OPERATORS["constexpr_blockwise_shift_scale"](data=DATA, scale=scale)
    np.testing.assert_allclose(plain, DATA * scale.repeat(2, 1), rtol=1e-6)


def test_lut_to_dense_of_ios16() -> None:
    """3 x 3 indices of 2 bits in 3 bytes, the first in the lowest bits."""
    lut = normal(4)
    indices = np.array([0b11_10_01_00, 0b00_01_10_11, 0b10], np.uint8)
    found = OPERATORS["constexpr_lut_to_dense"](indices=indices, lut=lut, shape=np.array([3, 3], np.uint32))
    assert np.array_equal(found, lut[[[0, 1, 2], [3, 3, 2], [1, 0, 2]]])


def test_lut_to_dense_of_ios18() -> None:
    """Each two rows have a palette; then vectors of 3 along the rows."""
    indices = rng.integers(0, 4, (4, 6), dtype=np.uint8)
    lut = normal(2, 1, 4, 1)
    found = OPERATORS["constexpr_lut_to_dense"](indices=indices, lut=lut)
    assert np.array_equal(found, [[lut[row // 2, 0, i, 0] for i in indices[row]] for row in range(4)])
    vectors = normal(1, 1, 4, 3)
    found = OPERATORS["constexpr_lut_to_dense"](indices=indices, lut=vectors, vector_axis=np.array(0))
    assert found.shape == (12, 6)
    assert all(
        np.array_equal(found[3 * r : 3 * r + 3, c], vectors[0, 0, indices[r, c]]) for r in range(4) for c in range(6)
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_integers_for_activations(dtype: str, axis: int | None) -> None:
    """Of one scale or one for each channel, with a zero and without. Beyond the last integer there is none."""
    scale = np.array(0.75, np.float32) if axis is None else np.abs(Y[0, :, 0, 0])
    wide = 100 * X
    wide[0, 0, 0, :2] = np.array([2.5, 3.5]) * scale.flat[0]  # halfway: to the even number
    for zero in (-7 if dtype == "int8" else 100, 0):
        zeros = np.full(scale.shape, zero, dtype)
        given = {"scale": scale} if zero == 0 else {"scale": scale, "zero_point": zeros}
        given |= {} if axis is None else {"axis": np.array(axis)}
        codes = OPERATORS["quantize"](input=wide, output_dtype=dtype, **given)
        spread = torch.from_numpy(scale.reshape(-1, 1, 1))
        ends = torch.iinfo(getattr(torch, dtype))
        wanted = torch.clamp(torch.round(torch.from_numpy(wide) / spread) + zero, ends.min, ends.max)
        assert codes.dtype == dtype and np.array_equal(codes, wanted.numpy())
        back = OPERATORS["dequantize"](input=codes, **given)
        np.testing.assert_allclose(back, ((wanted - zero) * spread).numpy(), rtol=1e-6)
        assert codes.min() == ends.min and codes.max() == ends.max and np.ptp(codes[0, 0, 0, :2]) == 2


def test_there_are_no_other_integers() -> None:
    with pytest.raises(ValueError, match="the integer type int4 is not known"):
        OPERATORS["quantize"](input=X, scale=ONE, output_dtype="int4")


def test_every_operator_is_tested() -> None:
    other = {"split", "conv", "quantize", "dequantize"} | {name for name in OPERATORS if name.startswith("constexpr_")}
    assert {case[0] for case in CASES} | other == set(OPERATORS)
