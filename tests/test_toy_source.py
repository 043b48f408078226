"""A checkpoint source that no file of the product knows: one file that holds a model, with no folder anywhere. It is
exported, judged, compared and drawn with, by this file alone."""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from support.toys import registered

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.compare import compare_two
from pocketdiffusion.export import checkpoints
from pocketdiffusion.export.arguments import defaults
from pocketdiffusion.export.checkpoints import sources
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.checkpoints.tensor import Stored
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden

MODELS = ("unet", "vae", "text_encoder")

# The source: a ZIP archive without compression, in which a tensor lies as it does in a file of its own.

ORDER = 15


def open_toy(name: str, options: OpenOptions) -> Checkpoint | None:
    """Of files that end in .toy."""
    file = Path(name)
    if file.suffix != ".toy":
        return None
    if not file.is_file():
        raise UserError(f"there is no toy {name}")
    index = read_member(file, "model_index.json")
    configs = {part: read_member(file, f"{part}/config.json") for part in MODELS}
    for part in ("unet", "vae"):
        configs[part] = defaults(getattr(diffusers, index[part][1])) | configs[part]
    tensors = {part: find_tensors(file, part) for part in MODELS}
    scheduler, tokenizer = read_member(file, "scheduler/scheduler_config.json"), unpack_tokenizer(file)
    return Checkpoint(
        name=file.stem,
        revision=None,
        model_index=index,
        configs=configs,
        tensors=tensors,
        scheduler=scheduler,
        tokenizers={"tokenizer": tokenizer},
        licence="unknown",
        licence_files={},
        weight_files={file.name: file},
        open_pipeline=ToyPipeline(index, configs, tensors, scheduler, tokenizer),
        allow_unexpected=options.allow_unexpected,
    )


def read_member(file: Path, name: str) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        content: dict[str, Any] = json.loads(archive.read(name))
    return content


def unpack_tokenizer(file: Path) -> Path:
    """transformers opens folders alone."""
    home = Path(tempfile.mkdtemp(dir=file.parent))
    with zipfile.ZipFile(file) as archive:
        archive.extractall(home, [name for name in archive.namelist() if name.startswith("tokenizer/")])
    return home / "tokenizer"


def find_tensors(file: Path, part: str) -> dict[str, Stored]:
    """Where they lie in the archive: behind the header of the member, and that of its safetensors file."""
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        (member,) = (i for i in archive.infolist() if i.filename.startswith(part) and i.filename.endswith("tensors"))
        assert member.compress_type == zipfile.ZIP_STORED
        stream.seek(member.header_offset + 26)
        lengths = np.frombuffer(stream.read(4), "<u2")
        start = member.header_offset + 30 + int(lengths.sum())
        stream.seek(start)
        length = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(length))
    base = start + 8 + length
    return {
        name: Stored(file, base + entry["data_offsets"][0], "float32", tuple(entry["shape"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    }


@dataclass(frozen=True)
class ToyPipeline:
    """The pipeline, made of its modules in memory."""

    index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[str, Stored]]
    scheduler: Mapping[str, Any]
    tokenizer: Path

    def __call__(self, pipeline_class: Any, **options: Any) -> Any:
        parts, others = {}, {name: value for name, value in options.items() if name != "torch_dtype"}
        for part in MODELS:
            stored = {name: torch.from_numpy(tensor.read()) for name, tensor in self.tensors[part].items()}
            if part == "text_encoder":
                config = transformers.CLIPTextConfig(**self.configs[part])
                parts[part] = transformers.CLIPTextModel.from_pretrained(None, config=config, state_dict=stored)
            else:
                parts[part] = getattr(diffusers, self.index[part][1]).from_config(dict(self.configs[part]))
                parts[part].load_state_dict(stored)
        scheduler = getattr(diffusers, self.index["scheduler"][1]).from_config(dict(self.scheduler))
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(self.tokenizer))
        return pipeline_class(**parts, scheduler=scheduler, tokenizer=tokenizer, **others)


# What the product does with it.


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    source = f"from {__name__} import ORDER, open_toy as open\n"
    with registered(checkpoints, "toy_archive", source, tmp_path_factory.mktemp("checkpoints")):
        yield


@pytest.fixture(scope="module")
def model(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro checkpoint as an archive."""
    file = tmp_path_factory.mktemp("toy") / "micro.toy"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in micro_checkpoint.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(micro_checkpoint).as_posix())
    return file


def test_it_is_asked_in_its_order(model: Path) -> None:
    assert [source.__name__.rpartition(".")[2] for source in sources()] == ["builtin", "toy_archive", "folder", "hub"]
    with pytest.raises(UserError, match="there is no toy nothing.toy"):
        open_checkpoint("nothing.toy")


@pytest.mark.slow
def test_it_is_exported_judged_and_drawn_with(model: Path, micro_checkpoint: Path, tmp_path: Path) -> None:
    """Every file but those that name the model is that of the folder's own bundle."""
    ours, theirs = (
        open_bundle(
            export(str(source), "generic", tmp_path / source.name, ExportOptions(format="onnx", recipe="fp16")).folder
        )
        for source in (model, micro_checkpoint)
    )
    verdicts, _ = judge(ours, read_golden(ours)[:1])
    assert all(verdict.passed for verdict in verdicts)
    different = {path for path, entry in ours.manifest.files.items() if theirs.manifest.files[path] != entry}
    assert not [path for path in different if path.endswith((".onnx", ".onnx_data", ".raw", ".bin"))]
    assert np.array_equal(draw(ours, "red apple", steps=2), draw(theirs, "red apple", steps=2))


@pytest.mark.slow
def test_it_is_compared(model: Path, micro_checkpoint: Path) -> None:
    facts: Any = {"prompts": ["red apple"], "seed": 0, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    found = compare_two(
        str(model), str(micro_checkpoint), **facts, revision=None, token=None, progress=lambda line: None
    )
    assert found.difference.lowest_db == float("inf")
