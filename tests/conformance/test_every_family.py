"""What every family must do, on the smallest checkpoint of each: components that run, with their weights and sites; a
program that calls each of them; and refusals that name what is wrong."""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import diffusers
import pytest
from support.sdxl import write_sdxl

from pocketdiffusion.export import families
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import check_runs, load_module
from pocketdiffusion.export.families import components, find_family, program, scheduler_config
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.pipeline import open_pipeline
from pocketdiffusion.export.trace import trace
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import DENOISE

FAMILIES = [module.name for module in iter_modules(families.__path__) if not module.ispkg]
# Of each family, how its smallest checkpoint is written into a folder. A new family has its own line here.
SMALLEST: dict[str, Callable[[Path, Path], object]] = {
    "stable_diffusion": lambda folder, micro: shutil.copytree(micro, folder),
    "sdxl": lambda folder, micro: write_sdxl(folder),
}
in_each = pytest.mark.parametrize("name", FAMILIES)
Opened = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def folders(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        SMALLEST[name](home / name, micro_checkpoint)
    return {name: home / name for name in FAMILIES}


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder), progress=lambda line: None)


@in_each
def test_it_holds_what_a_family_is_asked_for(name: str, folders: dict[str, Path]) -> None:
    family: Any = import_module(f"{families.__name__}.{name}")
    for wanted in ("components", "program", "calls", "modules", "scheduler_config"):
        assert callable(getattr(family, wanted))
    assert hasattr(diffusers, family.PIPELINE) and family.PIPELINES and family.CLASSES and family.TOKENIZERS
    assert find_family(opened(folders[name])) is family


@in_each
def test_its_components_run_with_their_weights(name: str, folders: dict[str, Path]) -> None:
    checkpoint = opened(folders[name])
    parts = components(checkpoint)
    assert len({part.spec.name for part in parts}) == len(parts) >= 3
    for part in parts:
        check_runs(part)
        trace(part, (), open_batch=False)  # which counts the sites that need no rewrite
        module, example = load_module(part), part.example(1)
        assert set(part.weights) == set(module.state_dict())
        assert {t.name: (t.shape, t.dtype) for t in part.spec.inputs} == {
            key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in example.items()
        }
        found = module(*example.values())
        assert [t.shape for t in part.spec.outputs] == [tuple(output.shape) for output in found]
        assert all(output.isfinite().all() and output.std() > 0 for output in found)


@in_each
def test_its_program_calls_each_component(name: str, folders: dict[str, Path]) -> None:
    """`program` checks it too. The pipeline has a place where it calls each graph, and modules with its weights."""
    checkpoint = opened(folders[name])
    parts = components(checkpoint)
    drawn = program(checkpoint, parts)
    called = {call.graph for stage in drawn.stages for call in stage.calls}
    names = {part.spec.name for part in parts}
    assert called == names and DENOISE in {stage.stage for stage in drawn.stages}
    pipeline = open_pipeline(checkpoint)
    family = find_family(checkpoint)
    assert set(family.calls(pipeline)) == set(family.modules(pipeline)) == names
    assert scheduler_config(checkpoint)["_class_name"] == checkpoint.model_index["scheduler"][1]


def spoilt(folder: Path, to: Path, file: str, **changes: Any) -> Path:
    shutil.copytree(folder, to)
    content = json.loads((to / file).read_text())
    (to / file).write_text(json.dumps(content | changes))
    return to


@in_each
@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("model_index.json", {"unet": [None, None]}, "unet is a None"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
        ("model_index.json", {"tokenizer": None}, "has no entry tokenizer"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("unet/config.json", {"norm_num_groups": 7}, "unet: no module can be built from config.json"),
        ("vae/config.json", {"layers_per_block": 2}, "vae: the weights do not fit"),
    ],
)
def test_what_it_does_not_serve_is_named_in_one_line(
    name: str, file: str, changes: dict[str, Any], told: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        components(opened(spoilt(folders[name], tmp_path / "model", file, **changes)))
    assert told in str(caught.value) and "\n" not in str(caught.value)
