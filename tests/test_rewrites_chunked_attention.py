from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from support.traced_parts import component_of, narrow_sd15_unet, psnr
from torch import Tensor, nn

from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.rewrites.batched_attention import products
from pocketdiffusion.export.rewrites.chunked_attention import apply, chunked_attention, in_chunks
from pocketdiffusion.export.rewrites.fused_attention import attention
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.check import Scope
from pocketdiffusion.runtime.verify.tolerances import floor_db

SIZES = (1, 2, 5, 6, 12, 40)  # of 12 tokens: dividing, not dividing, all, more than there are


def test_fires_on_every_attention(tmp_path: Path) -> None:
    assert apply(narrow_sd15_unet(tmp_path).build()) == 32
    assert apply(nn.Sequential(nn.Linear(4, 4))) == 0


def test_does_not_fire_on_attention_that_does_more() -> None:
    normed = Attention(32, heads=4, dim_head=8, qk_norm="layer_norm")
    added = Attention(32, heads=4, dim_head=8, added_kv_proj_dim=16, processor=AttnAddedKVProcessor2_0())
    assert apply(nn.ModuleList([normed, added])) == 0


def test_what_is_refused() -> None:
    q = torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match="one sample, not 2"):
        in_chunks(q, q, q, 2, 0.5, False)
    for sizes in ((0, 1), (1, 0), (-3, 5)):
        with pytest.raises(ValueError, match="must have at least 1"):
            in_chunks(q[:1], q[:1], q[:1], 2, 0.5, False, *sizes)


@pytest.mark.parametrize("query_chunk", SIZES)
@pytest.mark.parametrize("key_chunk", SIZES)
@pytest.mark.parametrize(("n", "m", "causal"), [(12, 12, False), (12, 7, False), (12, 12, True), (7, 12, True)])
def test_parity_of_any_chunks(n: int, m: int, causal: bool, query_chunk: int, key_chunk: int) -> None:
    torch.manual_seed(0)
    q, k, v = 3 * torch.randn(1, n, 8), 3 * torch.randn(1, m, 8), torch.randn(1, m, 8)
    found = in_chunks(q, k, v, 2, 0.3, causal, query_chunk, key_chunk)
    assert psnr(attention(q, k, v, 2, 0.3, causal).numpy(), found.numpy()) > 125


@pytest.mark.parametrize("key_chunk", [1, 5, 12])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_overflow_the_exponential(key_chunk: int, sign: int) -> None:
    """Up to 1e5, and all of one sign, where exp ends at 88: the weights of other chunks must not be lost either."""
    torch.manual_seed(0)
    q, k, v = 100 + torch.rand(1, 12, 8), sign * (100 + torch.rand(1, 12, 8)), torch.randn(1, 12, 8)
    scores = q[0, :, :4] @ k[0, :, :4].T
    assert scores.abs().min() > 88 and not torch.exp(scores.abs()).isfinite().any()
    wanted = products(q.double(), k.double(), v.double(), 2, 1.0, False)
    assert psnr(wanted.numpy(), in_chunks(q, k, v, 2, 1.0, False, 5, key_chunk).numpy()) > 50


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_chunk", [1, 5, 12])
def test_it_holds_in_half(causal: bool, key_chunk: int) -> None:
    """Within the gate's floor for arithmetic in float16; 1500 values of 60 would not fit if summed before dividing."""
    torch.manual_seed(0)
    for gain, keys in ((3.0, 12), (30.0, 12), (0.0, 1500)):
        q, k = (gain * torch.randn(1, keys, 8) for _ in "qk")
        q, k, v = (t.half() for t in (q, k, 60 + torch.randn(1, keys, 8)))
        wanted = products(q.double(), k.double(), v.double(), 2, 0.3, causal).numpy()
        found = in_chunks(q, k, v, 2, 0.3, causal, 500, key_chunk if keys == 12 else 100 * key_chunk)
        assert found.dtype == torch.float16
        assert psnr(wanted, found.numpy()) > floor_db(Scope(storage="float16", arithmetic="float16"))


def test_a_causal_mask_hides_what_comes_later() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 12, 8) for _ in "qkv")
    one = in_chunks(q, k, v, 2, 0.3, True, 5, 3)
    for t in (k, v):
        t[:, 8:] += 1
    other = in_chunks(q, k, v, 2, 0.3, True, 5, 3)
    assert torch.equal(one[:, :8], other[:, :8])
    assert not torch.allclose(one[:, 8:], other[:, 8:])


def test_the_operator_alone() -> None:
    q, k, v = (torch.randn(1, 12, 8) for _ in "qkv")
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(chunked_attention, (q, k, v, 2, 0.3, True, 5, 4), test_utils=checks)
    torch.library.opcheck(chunked_attention, (q, k, v, 2, 0.3, False), test_utils=checks)


class InChunks(nn.Module):
    """Self-attention of 14 tokens in chunks of 5 queries and 4 keys, behind a layer with weights."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.qkv, self.causal = nn.Linear(16, 48), causal

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = chunked_attention(*self.qkv(x).chunk(3, dim=-1), 4, 0.6, self.causal, 5, 4)
        return mixed


FORMATS = [
    pytest.param("onnx", "std", "fp32", 120),
    pytest.param("onnx", "ort", "fp32", 120),
    pytest.param("tflite", "std", "fp32", 120, marks=pytest.mark.slow),
    pytest.param("coreml", "ios16", "fp32", 120, marks=pytest.mark.slow),
    pytest.param("coreml", "ios17", "fp16", 58, marks=pytest.mark.slow),
    pytest.param("coreml", "ios18", "fp16", 58),
]


def emitted(build: Callable[[], nn.Module], x: Tensor, wanted: Artifact, folder: Path) -> tuple[dict[str, int], float]:
    """The operators of the file, and its PSNR against the original module."""
    part = component_of(folder, build, {"x": x}, {"y": tuple(x.shape)}, {"attention": 1})
    graph = emit_floats(part, wanted, folder, open_batch=False)
    found = load_runner(folder, wanted.format, graph)({"x": x.numpy()})["y"]
    with torch.no_grad():
        return graph.ops, psnr(load_module(part)(x).numpy(), found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("format", "profile", "recipe", "floor"), FORMATS)
def test_parity_of_every_format(
    tmp_path: Path, format: str, profile: str, recipe: str, floor: float, causal: bool
) -> None:
    torch.manual_seed(0)
    wanted = Artifact(format, profile, recipe, "cpu", ("chunked_attention",))
    ops, db = emitted(lambda: InChunks(causal), torch.randn(1, 14, 16), wanted, tmp_path)
    if profile == "ort":
        assert ops["MultiHeadAttention"] == 1 and "Softmax" not in ops
    else:  # causal: chunks of 4 queries, which see 1, 2, 3 and 4 chunks of keys; else 3 times 4
        assert ops["SOFTMAX" if format == "tflite" else "Softmax" if format == "onnx" else "softmax"] == (
            10 if causal else 12
        )
    assert db > floor


@pytest.mark.parametrize(("format", "profile", "recipe", "floor"), [row for row in FORMATS if "ort" not in row.values])
def test_one_chunk_is_batched_attention(tmp_path: Path, format: str, profile: str, recipe: str, floor: float) -> None:
    """Profile ort has one operator, however many chunks."""
    counts = []
    for name in ("chunked_attention", "batched_attention"):
        (tmp_path / name).mkdir()
        wanted = Artifact(format, profile, recipe, "cpu", (name,))
        x = torch.randn(1, 512, 16)
        ops, db = emitted(lambda: Attention(16, heads=2, dim_head=8), x, wanted, tmp_path / name)
        counts.append(ops)
        assert db > floor
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("format", "profile"), [("onnx", "std"), ("coreml", "ios17"), ("tflite", "std")])
def test_a_site_missing_is_seen(tmp_path: Path, format: str, profile: str) -> None:
    """The sites are counted where markers give way to their bodies."""
    part = component_of(tmp_path, lambda: InChunks(False), {"x": torch.randn(1, 14, 16)}, {"y": (1, 14, 16)}, {})
    wanted = Artifact(format, profile, "fp32", "cpu", ("chunked_attention",))
    with pytest.raises(
        ProofError, match="1 attention sites were found in the traced graph, and the model's configuration requires 2"
    ):
        emit_floats(replace(part, sites={"attention": 2}), wanted, tmp_path, open_batch=False)
