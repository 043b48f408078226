"""The files that make onnx/ the folder of a pipeline, which optimum's `ORTDiffusionPipeline` opens.

    onnx/model_index.json    the pipeline's class, and the classes of its parts
    onnx/scheduler/  tokenizer/
    onnx/NAME/config.json    next to each graph: the configuration of the component

optimum runs both halves of guidance in one call, so the UNet's batch must be open. It casts token ids and timesteps to
the types of the graph's inputs, and reshapes the timestep to [1] if the graph's input has this shape.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import ClipTokenizer, read_tokenizer, write_vocabulary
from pocketdiffusion.export.families import scheduler_config
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.sampling.samplers import diffusers_class

_COMPONENTS = {"text_encoder": "text_encoder", "unet": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}
_LOADED = ("scheduler", "tokenizer", "text_encoder", "unet", "vae")
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


def opens_in_optimum(graphs: Mapping[str, Graph]) -> bool:
    """Return True if optimum 2.1 can run the graphs of the bundle: it calls the UNet with both halves of guidance at
    once, so that its batch must be open; it passes no mask to the text encoder; it calls no other graphs, and the
    decoder for complete pictures."""
    if set(graphs) != set(_COMPONENTS):
        return False
    batch, _, *size = graphs["unet"].spec.inputs[0].shape
    if [*graphs["vae_decoder"].spec.inputs[0].shape[2:]] != size:
        return False
    return isinstance(batch, str) and len(graphs["text_encoder"].spec.inputs) == 1


def write_optimum(
    folder: Path, graphs: Mapping[str, Graph], checkpoint: Checkpoint, size: tuple[int, int]
) -> Mapping[str, str]:
    """Write the companions of `graphs`, for latents of `size` (height, width), if optimum can run them. Return
    {tokenizer: its folder below the bundle's}, {} if nothing is written."""
    if not opens_in_optimum(graphs):
        return {}
    write_companions(folder, checkpoint, *size)
    return {"tokenizer": f"{folder.name}/tokenizer"}


def write_companions(folder: Path, checkpoint: Checkpoint, latent_height: int, latent_width: int) -> None:
    """Write the companions below `folder`, which has text_encoder/, unet/, vae_decoder/, vae_encoder/ with their
    graphs.

    They have the content of the checkpoint's own files, without local paths; the UNet's sample_size is the graph's,
    from which optimum computes the size of its pictures.
    """
    index = dict(checkpoint.model_index)
    scheduler = scheduler_config(checkpoint)
    if checkpoint.sampler is not None:
        name, settings = diffusers_class(checkpoint.sampler)
        scheduler |= {**settings, "_class_name": name}
        index["scheduler"] = ["diffusers", name]
    parts = {part: index[part] for part in _LOADED} | {part: [None, None] for part in _UNUSED}
    named = {key: index[key] for key in ("_class_name", "_diffusers_version") if key in index}
    _write(folder / "model_index.json", named | parts | {"requires_safety_checker": False})
    for graph, part in _COMPONENTS.items():
        config = _public(checkpoint.configs[part])
        if part == "unet":
            square = latent_height == latent_width
            config.pop("_diffusers_version", None)  # with an old version diffusers replaces a small sample_size
            config["sample_size"] = latent_height if square else [latent_height, latent_width]
        _write(folder / graph / "config.json", config)
    _write(folder / "scheduler/scheduler_config.json", _public(scheduler))
    source = read_tokenizer(checkpoint.tokenizers["tokenizer"], index["tokenizer"][1])
    _write(folder / "tokenizer/tokenizer_config.json", _tokenizer_config(source))
    write_vocabulary(source, folder / "tokenizer")


def _tokenizer_config(source: ClipTokenizer) -> dict[str, Any]:
    """Return what transformers needs besides the vocabulary: special tokens, and every added token with its flags."""
    texts = {number: text for text, number in source.vocab.items()} | {token.id: token.text for token in source.added}
    marks = {"bos": source.bos_id, "eos": source.eos_id, "pad": source.pad_id}
    if source.unk_id is not None:
        marks["unk"] = source.unk_id
    flags = ("special", "normalized", "lstrip", "rstrip", "single_word")
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": source.max_length,
        **{f"{name}_token": texts[number] for name, number in marks.items()},
        "added_tokens_decoder": {
            str(token.id): {"content": token.text, **{flag: getattr(token, flag) for flag in flags}}
            for token in source.added
        },
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` without the private keys, which have local paths; the class and the version of diffusers stay."""
    return {k: v for k, v in config.items() if not k.startswith("_") or k in ("_class_name", "_diffusers_version")}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
