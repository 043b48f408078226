"""Lossy schemes in TFLite on small parts: weights that look alike, what is refused, what cannot be had."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tflite_plans import (
    EXACT_DB,
    SCHEMES,
    W8,
    Faint,
    Shifted,
    Small,
    Sum,
    Table,
    Twins,
    Wide,
    artifact,
    convert_once,  # noqa: F401  # a fixture
    emit_small,
    plan_of,
    small,
    weights_in,
    weights_only,
    with_input,
)
from support.traced_parts import psnr
from torch import nn

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.fp16_emulation import open_replay
from pocketdiffusion.export.backends.tflite.file import data_of, operator_name, read_model
from pocketdiffusion.export.backends.tflite.intermediate_outputs import layers
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.quantize.qparams import affine
from pocketdiffusion.quantize.quantized_tensor import Linear, nbytes, store
from pocketdiffusion.quantize.scheme import FLOAT16, Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError, UserError


def test_an_operator_in_int8_is_within_a_step_of_torch(tmp_path: Path, converted_once: None) -> None:
    """Torch rounds each operator's output here too; values in the middle between two steps may go to either."""
    made = emit_small(tmp_path, Small, with_input("int8", "linear", "conv"))
    assert made.graph.ops["QUANTIZE"] == 2  # the products share one
    runner = open_quantized(made.part, (), made.plan, litert=True)
    wanted, found = runner(made.inputs)["y"], made.run()["y"]
    step, _ = affine(made.plan.outputs["a.weight"], 8)
    off = np.abs(wanted - found)
    assert off.max() < 2 * step and np.mean(off > 1e-5) < 0.1


@pytest.mark.parametrize("scheme", ["w8", "w8a8", "dynamic8"])
def test_weights_that_look_alike(tmp_path: Path, converted_once: None, scheme: str) -> None:
    """Each keeps its name, a zero channel its zeros, and what the converter multiplied is what it was."""
    made = emit_small(tmp_path, Twins, SCHEMES[scheme])
    assert made.worst(made.torch()) >= {"w8": EXACT_DB, "w8a8": 35, "dynamic8": 50}[scheme]
    model = read_model(made.path)
    found = weights_in(model)
    assert set(found) == set(made.plan.schemes)
    for name, tensor in found.items():
        data, stored = data_of(model, tensor), store(made.part.weights[name].read(), W8)
        assert data is not None and isinstance(stored, Linear)
        np.testing.assert_array_equal(data.view(np.int8), stored.quantized.reshape(-1))
        assert (tensor.quantization.scale > 0).all()


@pytest.mark.parametrize(
    ("build", "choose", "said"),
    [
        (Sum, weights_only(8), "a.weight: litert-torch left this weight out, or changed its values"),
        (Shifted, with_input("int8", "linear"), "a.weight: the operator of this weight does not add the"),
        (Faint, with_input("int8", "linear"), "a.weight: the bias is too large for int32"),
        (Table, with_input("int8", "embedding"), "table.weight: its operator .* cannot compute with int8 input"),
    ],
)
def test_what_cannot_be_had_is_named(
    tmp_path: Path, converted_once: None, build: type[nn.Module], choose: Callable[[str, str], Scheme], said: str
) -> None:
    with pytest.raises(ProofError, match=said):
        emit_small(tmp_path, build, choose)


def test_a_range_that_was_not_calibrated(tmp_path: Path, converted_once: None) -> None:
    part = small(tmp_path, Small)
    plan = plan_of(part, with_input("int8", "linear"))
    plan = replace(
        plan, outputs={name: value_range for name, value_range in plan.outputs.items() if name != "b.weight"}
    )
    with pytest.raises(
        ProofError, match="b.weight: its operator computes in int8, and its value ranges are not calibrated"
    ):
        emit(part, artifact(()), tmp_path, open_batch=False, plan=plan)


def test_a_large_weight_and_the_size_of_the_file(tmp_path: Path, converted_once: None) -> None:
    made = emit_small(tmp_path, Wide, weights_only(8))
    assert made.worst(made.torch()) >= EXACT_DB
    size = sum(nbytes(ref.shape, made.plan.of(name, ref.shape)) for name, ref in made.part.weights.items())
    assert size < made.path.stat().st_size < 1.03 * size


def test_the_replay_of_integers(tmp_path: Path, converted_once: None) -> None:
    made = emit_small(tmp_path, Small, weights_only(8))
    seen: dict[str, float] = {}
    single = open_replay(tmp_path, "tflite", made.graph, "float32", lambda kind, name, x: seen.update({kind: x}))
    half = open_replay(tmp_path, "tflite", made.graph, "float16", lambda *_: None)
    exact = made.run()["y"]
    assert psnr(exact, single(made.inputs)["y"]) > 130 and {"CONV_2D", "FULLY_CONNECTED"} <= set(seen)
    assert 55 < psnr(exact, half(made.inputs)["y"]) < 90


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (Scheme("palette", 6, 16), "TFLite has no tables of values for weights; the nearest is w8"),
        (Scheme("linear", 4, 32), "scales of blocks only in matrix products: .*; the nearest is w8"),
        (replace(W8, activation="int16"), "no fast kernel for activations of int16: .* 13 times .*; the nearest is w8"),
        (replace(FLOAT16, activation="int8"), "needs integer weights; the nearest is w8a8"),
    ],
)
def test_what_is_refused(tmp_path: Path, scheme: Scheme, said: str) -> None:
    part = small(tmp_path, Small)
    plan = Plan("mine", dict.fromkeys(weights_of(part), scheme))
    with pytest.raises(UserError, match=f"tflite std cannot use the recipe mine: .*{said}"):
        emit(part, artifact(), tmp_path, open_batch=False, plan=plan)
    assert not (tmp_path / "tflite").exists()


def test_a_table_of_int8_needs_no_new_version(tmp_path: Path) -> None:
    """TensorFlow Lite 2.16.1 knows EMBEDDING_LOOKUP up to version 3: with one scale for all rows."""
    made = emit_small(tmp_path, Table, weights_only(8))
    model = read_model(made.path)
    operators = model.subgraphs[0].operators
    versions = {operator_name(model, o): model.operatorCodes[o.opcodeIndex].version for o in operators}
    assert versions["EMBEDDING_LOOKUP"] == 1 and made.graph.ops["EMBEDDING_LOOKUP"] == 2
    np.testing.assert_array_equal(made.run()["y"], made.torch()["y"])
    (layer,) = layers(made.path, made.plan.schemes)
    maker = next(o for o in operators if operator_name(model, o) == "MUL")
    assert model.subgraphs[0].tensors[maker.outputs[0]].name.decode() == layer.result
    shapes = 4 * (1 + 3)  # of two RESHAPEs
    assert made.graph.memory is not None and made.graph.memory.weights_bytes == 50 * 8 + 4 * 50 + shapes
