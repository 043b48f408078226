"""For the tests of what every format must do: each registered backend in each of its profiles, and a small matrix."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.targets import load_target, target_names
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.runner import Array
from support.traced_parts import component_of, psnr

SIZE = 64  # of a small matrix: blocks of 32 divide it
RECIPES = ("fp32", "fp16")


def shipped() -> list[Artifact]:
    """Each profile of each backend with the rewrites of its default, then what targets ship with others."""
    defaults = [find_backend(name).default for name in backend_names()]
    found = [replace(d, profile=profile) for d in defaults for profile in find_backend(d.format).profiles]
    for wanted in (a for target in map(load_target, target_names()) for a in target.artifacts):
        default = find_backend(wanted.format).default
        found.append(replace(default, profile=wanted.profile, rewrites=wanted.rewrites))
    return list(dict.fromkeys(found))


def each_profile() -> list[Artifact]:
    return [a for a in shipped() if a.rewrites == find_backend(a.format).default.rewrites]


def name_of(artifact: Artifact) -> str:
    own = find_backend(artifact.format).default.rewrites
    return "-".join([artifact.format, artifact.profile, *(r for r in artifact.rewrites if r not in own)])


in_each_artifact = pytest.mark.parametrize("artifact", shipped(), ids=name_of)
in_each_profile = pytest.mark.parametrize("artifact", each_profile(), ids=name_of)
in_each_format = pytest.mark.parametrize("format", backend_names())


def read_parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


def worst_db(part: Component, folder: Path, format: str, graph: Graph, reference: Sequence[Array]) -> float:
    """Of all outputs on the component's example, by the runner that users get."""
    found = load_runner(folder, format, graph)({key: tensor.numpy() for key, tensor in part.example(0).items()})
    return min(psnr(r, found[tensor.name]) for tensor, r in zip(part.spec.outputs, reference, strict=True))


def matrix(folder: Path) -> Component:
    inputs = {"x": torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))}
    return component_of(folder, lambda: nn.Linear(SIZE, SIZE), inputs, {"y": (1, SIZE)}, {})
