"""Of several weight files in a folder, those are read that diffusers and transformers read themselves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.command import refusal as refused_command
from transformers import CLIPTextModel

from pocketdiffusion.export.checkpoints.folder import FolderPipeline
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError

Tensors = dict[str, torch.Tensor]
UNET, TEXT = "diffusion_pytorch_model", "model"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


def write_shards(part: Path, stem: str, tensors: Tensors, index: str, shard: str) -> dict[str, Any]:
    """Two shards, named by `shard`, and their index."""
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number in (1, 2):
        own = {name: tensors[name].contiguous() for name in names[number - 1 :: 2]}
        save_file(own, part / shard.format(number), {"format": "pt"})
        placed |= dict.fromkeys(own, shard.format(number))
    content = {"metadata": {"total_size": 1}, "weight_map": placed}
    (part / index).write_text(json.dumps(content))
    return content


def scaled(tensors: Tensors, factor: float) -> Tensors:
    return {name: (tensor * factor).contiguous() for name, tensor in tensors.items()}


def stale_single(part: Path, stem: str, tensors: Tensors) -> None:
    """The older single file beside newer shards."""
    write_shards(
        part, stem, scaled(tensors, 0.5), f"{stem}.safetensors.index.json", stem + "-{:05d}-of-00002.safetensors"
    )


def shards_alone(part: Path, stem: str, tensors: Tensors) -> None:
    stale_single(part, stem, tensors)
    (part / f"{stem}.safetensors").unlink()


def odd_names(part: Path, stem: str, tensors: Tensors) -> None:
    """Shards are found by the index, whatever they are called."""
    write_shards(part, stem, scaled(tensors, 0.5), f"{stem}.safetensors.index.json", "piece{}.safetensors")
    (part / f"{stem}.safetensors").unlink()


def stale_shard(part: Path, stem: str, tensors: Tensors) -> None:
    """A shard of an older save in three parts, which the index does not name."""
    shards_alone(part, stem, tensors)
    save_file(scaled(tensors, 3), part / f"{stem}-00003-of-00003.safetensors", {"format": "pt"})


def wrong_place(part: Path, stem: str, tensors: Tensors) -> None:
    """The index puts a tensor into the other shard; both libraries read whole shards."""
    shards_alone(part, stem, tensors)
    index = part / f"{stem}.safetensors.index.json"
    content = json.loads(index.read_text())
    first, second = sorted(content["weight_map"])[:2]
    placed = content["weight_map"]
    placed[first], placed[second] = placed[second], placed[first]
    index.write_text(json.dumps(content))


def variant_beside(part: Path, stem: str, tensors: Tensors) -> None:
    save_file(scaled(tensors, 0.5), part / f"{stem}.fp16.safetensors", {"format": "pt"})
    write_shards(part, stem, scaled(tensors, 3), f"{stem}.safetensors.index.fp16.json", "half{}.safetensors")


def variant_shards(part: Path, stem: str, tensors: Tensors) -> None:
    write_shards(part, stem, scaled(tensors, 0.5), f"{stem}.safetensors.index.fp16.json", "half{}.safetensors")
    (part / f"{stem}.safetensors").unlink()


def variant_shards_of_old(part: Path, stem: str, tensors: Tensors) -> None:
    """The name that diffusers gave the index of a variant until 0.30; transformers never did."""
    name = "safetensors.fp16.index.json" if stem == UNET else "safetensors.index.fp16.json"
    write_shards(part, stem, scaled(tensors, 0.5), f"{stem}.{name}", stem + "-{:05d}-of-00002.fp16.safetensors")
    (part / f"{stem}.safetensors").unlink()


def variant_twice(part: Path, stem: str, tensors: Tensors) -> None:
    """The same order holds within a variant."""
    variant_shards(part, stem, tensors)
    save_file(scaled(tensors, 3), part / f"{stem}.fp16.safetensors", {"format": "pt"})


LAYOUTS: dict[Callable[[Path, str, Tensors], None], str | None] = {
    stale_single: None,
    shards_alone: None,
    odd_names: None,
    stale_shard: None,
    wrong_place: None,
    variant_beside: None,
    variant_shards: "fp16",
    variant_shards_of_old: "fp16",
    variant_twice: "fp16",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_the_weights_are_those_that_from_pretrained_reads(
    layout: Callable[[Path, str, Tensors], None], part: str, folder: Path
) -> None:
    model, stem = (UNet2DConditionModel, UNET) if part == "unet" else (CLIPTextModel, TEXT)
    layout(folder / part, stem, load_file(folder / part / f"{stem}.safetensors"))
    variant = LAYOUTS[layout]
    loaded = model.from_pretrained(folder / part, variant=variant).state_dict()
    expected = {name.removeprefix("text_model."): tensor for name, tensor in loaded.items()}
    checkpoint = open_checkpoint(str(folder), progress=lambda line: None)
    assert checkpoint.open_pipeline == FolderPipeline(folder, variant)
    (read,) = (found for found in components(checkpoint) if found.spec.name == part)
    for name, ref in read.weights.items():
        own = name.removeprefix("unet.").removeprefix("text_model.")
        np.testing.assert_array_equal(ref.read(), expected[own].numpy(), err_msg=name)


def edit_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(part: Path) -> None:
        index = part / f"{UNET}.safetensors.index.json"
        content = json.loads(index.read_text())
        change(content)
        index.write_text(json.dumps(content))

    return spoil


def place(name: str) -> Callable[[Path], None]:
    return edit_index(lambda content: content["weight_map"].update({"conv_in.bias": name}))


SECOND, INDEX = f"{UNET}-00002-of-00002.safetensors", f"{UNET}.safetensors.index.json"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda part: (part / SECOND).unlink(), f"unet has no {SECOND}, which {INDEX} names"),
    "index missing": (lambda part: (part / INDEX).unlink(), f"unet has shards and no {INDEX}"),
    "shard elsewhere": (
        place("../vae/model.safetensors"),
        "names '../vae/model.safetensors', which is not a file name",
    ),
    "shard pickled": (place("model.bin"), "unet/model.bin is a pickle"),
    "no metadata": (edit_index(lambda content: content.pop("metadata")), f"{INDEX} has no metadata"),
    "no map": (edit_index(lambda content: content.pop("weight_map")), "weight_map does not name the shard"),
    "a number": (edit_index(lambda content: content["weight_map"].update(x=1)), "weight_map does not name the shard"),
    "index cut": (lambda part: (part / INDEX).write_text('{"meta'), f"{INDEX} is not valid JSON"),
    "index a pointer": (lambda part: (part / INDEX).write_text("version https://git-lfs.gi"), f"{INDEX} is a Git LFS"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_wrong_with_shards_is_told(kind: str, folder: Path) -> None:
    spoil, words = SPOILT[kind]
    shards_alone(folder / "unet", UNET, load_file(folder / f"unet/{UNET}.safetensors"))
    spoil(folder / "unet")
    with pytest.raises(UserError) as caught:
        open_checkpoint(str(folder), progress=lambda line: None)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_full_weights_that_are_pickled_are_not_replaced_by_a_variant(folder: Path) -> None:
    """diffusers would read the pickle."""
    single = folder / f"unet/{UNET}.safetensors"
    single.rename(folder / f"unet/{UNET}.non_ema.safetensors")
    (folder / f"unet/{UNET}.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=f"unet/{UNET}.bin is a pickle"):
        open_checkpoint(str(folder), progress=lambda line: None)


def test_a_variant_of_one_part_is_taken_of_every_part_that_has_it(folder: Path) -> None:
    """As diffusers does, which is given one variant for all: the UNet has full weights too, the VAE has not."""
    tensors = load_file(folder / "unet" / f"{UNET}.safetensors")
    save_file(scaled(tensors, 0.5), folder / "unet" / f"{UNET}.fp16.safetensors", {"format": "pt"})
    (folder / "vae" / f"{UNET}.safetensors").rename(folder / "vae" / f"{UNET}.fp16.safetensors")
    checkpoint = open_checkpoint(str(folder), progress=lambda line: None)
    assert f"unet/{UNET}.fp16.safetensors" in checkpoint.weight_files
    assert f"text_encoder/{TEXT}.safetensors" in checkpoint.weight_files
    theirs = StableDiffusionPipeline.from_pretrained(folder, variant="fp16", safety_checker=None)
    ours = checkpoint.tensors["unet"]["conv_in.weight"].read()
    assert np.array_equal(theirs.unet.conv_in.weight.detach().numpy(), ours)
    (folder / "vae" / f"{UNET}.fp16.safetensors").rename(folder / "vae" / f"{UNET}.bf16.safetensors")
    (folder / "unet" / f"{UNET}.safetensors").unlink()
    with pytest.raises(UserError, match="only parts in different variants, bf16 and fp16"):
        open_checkpoint(str(folder), progress=lambda line: None)


def test_of_two_variants_none_is_guessed(folder: Path) -> None:
    single = folder / f"unet/{UNET}.safetensors"
    shutil.copy(single, folder / f"unet/{UNET}.non_ema.safetensors")
    single.rename(folder / f"unet/{UNET}.ema.safetensors")
    with pytest.raises(UserError, match="only variants, ema and non_ema"):
        open_checkpoint(str(folder), progress=lambda line: None)


def test_a_tensor_of_the_index_that_no_shard_holds_is_missing(folder: Path) -> None:
    shards_alone(folder / "unet", UNET, load_file(folder / f"unet/{UNET}.safetensors"))
    shard = folder / f"unet/{UNET}-00001-of-00002.safetensors"
    tensors = load_file(shard)
    tensors.pop("conv_in.bias")
    save_file(tensors, shard)
    assert "1 missing: unet.conv_in.bias" in refused_command("inspect", folder)
