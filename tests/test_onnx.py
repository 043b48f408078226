from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.traced_parts import artifact, component_of, emit_and_run, narrow_sd15_unet, psnr
from torch import nn

from pocketdiffusion.export.backends.onnx.emit import emit
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import TensorSpec

NAMES = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
FLOORS = {"fp32": 105, "fp16": 65}


@cache
def parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


def read(folder: Path, graph: Graph) -> onnx.ModelProto:
    return onnx.load(folder / graph.path, load_external_data=False)


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Component:
    return narrow_sd15_unet(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="module")
def sd15_half(sd15: Component, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph]:
    """The UNet of Stable Diffusion 1.5 with few channels, as exported for a phone."""
    folder = tmp_path_factory.mktemp("sd15_half")
    return folder, emit(sd15, artifact("ort", "fp16"), folder, open_batch=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "recipe"),
    [("ort", "fp32"), ("ort", "fp16"), ("std", "fp32"), ("std", "fp16")],
)
def test_topology_of_stable_diffusion_15(sd15: Component, tmp_path: Path, profile: str, recipe: str) -> None:
    """47 of the 68 SiLU are left: the one on the time embedding is the same in all 22 residual blocks."""
    own = {"ort": {"MultiHeadAttention": 32, "QuickGelu": 47}, "std": {"Softmax": 32, "Sigmoid": 47}}[profile]
    ops = {"Gelu": 16, "InstanceNormalization": 61, "LayerNormalization": 48, **own}
    graph, found, reference = emit_and_run(sd15, artifact(profile, recipe), tmp_path)
    assert {op: graph.ops.get(op, 0) for op in ops} == ops
    assert graph.ops.get("Cast", 0) == (recipe == "fp16") * sum(len(ref.shape) > 1 for ref in sd15.weights.values())
    assert graph.rewrites == {"fused_attention": 32, "quick_gelu": 0}
    assert graph.parameters == sum(tensor.numel() for tensor in load_module(sd15).parameters())
    assert psnr(reference["out_sample"], found["out_sample"]) >= FLOORS[recipe]


@pytest.mark.slow
def test_an_open_batch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = parts(tiny_checkpoint)["unet"]
    graph = emit(part, artifact(), tmp_path, open_batch=True)
    assert [t.shape[0] for t in graph.spec.inputs] == ["batch", 1, "batch"]
    assert [t.shape[0] for t in graph.spec.outputs] == ["batch"]
    runner, module = open_runner(tmp_path / graph.path, graph.spec, threads=1), load_module(part)
    for batch in (1, 2, 3):
        torch.manual_seed(batch)
        inputs = {t.name: torch.randn([s if isinstance(s, int) else batch for s in t.shape]) for t in graph.spec.inputs}
        with torch.no_grad():
            reference = module(*inputs.values())[0].numpy()
        found = runner({key: tensor.numpy() for key, tensor in inputs.items()})["out_sample"]
        assert psnr(reference, found) >= 105


def test_only_the_unet_opens_its_batch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = parts(tiny_checkpoint)["vae_decoder"]
    assert emit(part, artifact(), tmp_path, open_batch=True).spec == part.spec


def test_says_nothing_of_what_made_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    graph = emit(parts(tiny_checkpoint)["text_encoder"], artifact(), tmp_path, open_batch=False)
    raw = (tmp_path / graph.path).read_bytes()
    assert not [word for word in (b".py", b"torch", b"transformers") if word in raw]
    model = read(tmp_path, graph)
    assert not model.metadata_props and not model.doc_string and model.producer_name == "pocketdiffusion"
    named = (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer)
    assert not any(each.doc_string or each.metadata_props for each in (*named, *model.graph.value_info, model.graph))


def test_nodes_are_named_by_module(sd15: Component, sd15_half: tuple[Path, Graph]) -> None:
    names = [node.name for node in read(*sd15_half).graph.node if node.op_type != "Cast"]
    assert len(set(names)) == len(names)
    assert "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2/MultiHeadAttention" in names
    assert {name.rpartition("/")[0] for name in names} <= {name for name, _ in sd15.build().named_modules()}


def test_weights_are_turned_aligned_and_stored_once(sd15: Component, sd15_half: tuple[Path, Graph]) -> None:
    graph = read(*sd15_half).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        assert node.op_type not in ("Transpose", "Reshape", "Identity") or node.input[0] not in stored, node.name
    external = [t for t in stored.values() if t.data_location == onnx.TensorProto.EXTERNAL]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external]
    assert {place["location"] for place in places} == {"model.onnx_data"}
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in external)
    assert len(external) == sum(len(ref.shape) > 1 for ref in sd15.weights.values())
    assert all(node.input[0] in stored for node in graph.node if node.op_type == "Cast")
    bias = stored["unet.conv_in.bias"]
    assert bias.data_type == onnx.TensorProto.FLOAT and not bias.external_data


def test_a_half_weight_is_the_checkpoints(sd15: Component, sd15_half: tuple[Path, Graph]) -> None:
    """A Linear weight in the file is the checkpoint's, transposed and rounded to the nearest float16."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    folder, graph = sd15_half
    model = onnx.load(folder / graph.path)
    found = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == f"{name}.transpose")
    assert np.array_equal(found, sd15.weights[name].read().T.astype(np.float16))


def linear(folder: Path) -> Component:
    return component_of(folder, lambda: nn.Linear(8, 8), {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})


def test_a_tensor_without_a_place(tmp_path: Path) -> None:
    part = linear(tmp_path)
    part = replace(part, weights={"weight": part.weights["weight"]})
    with pytest.raises(ProofError, match="^bias: the graph needs this tensor"):
        emit(part, artifact(), tmp_path, open_batch=False)


def test_without_rewrites_the_exporter_does_its_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = parts(tiny_checkpoint)["text_encoder"]
    graph, found, reference = emit_and_run(part, artifact("ort", rewrites=()), tmp_path)
    assert graph.rewrites == {} and "MultiHeadAttention" not in graph.ops
    assert psnr(reference["last_hidden_state"], found["last_hidden_state"]) >= 105


def test_names_are_optimums(tiny_checkpoint: Path) -> None:
    specs = {name: part.spec for name, part in parts(tiny_checkpoint).items()}
    names = {name: ([t.name for t in s.inputs], [t.name for t in s.outputs]) for name, s in specs.items()}
    assert names == {
        "text_encoder": (["input_ids"], ["last_hidden_state", "pooler_output"]),
        "unet": (["sample", "timestep", "encoder_hidden_states"], ["out_sample"]),
        "vae_decoder": (["latent_sample"], ["sample"]),
        "vae_encoder": (["sample"], ["latent_parameters"]),
    }
    assert specs["unet"].inputs[1] == TensorSpec("timestep", (1,), "float32", specs["unet"].inputs[1].doc)
