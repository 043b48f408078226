"""Every layer of an artifact gives what the original's gives, in every format."""

from pathlib import Path

import numpy as np
import pytest
from support.recordings import GRAPHS

from pocketdiffusion.export.backends import emit
from pocketdiffusion.export.backends.taps import open_layers
from pocketdiffusion.export.checkpoints import open_checkpoint
from pocketdiffusion.export.checks.layer_errors import OriginalLayers, compare_layers, first_over
from pocketdiffusion.export.families import components
from pocketdiffusion.export.planned import float_plan, weights_of
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.runtime.verify.recording import recorded_steps

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

ARTIFACTS = [
    load_target("generic").artifacts[0],
    load_target("pixel-8").artifacts[0],
    load_target("galaxy-s24").artifacts[0],
    load_target("iphone-15").artifacts[0],
    load_target("iphone-16").artifacts[0],
]


@pytest.mark.parametrize("graph", ["unet", *(pytest.param(g, marks=pytest.mark.slow) for g in GRAPHS if g != "unet")])
@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda a: f"{a.format}-{a.profile}-{a.compute_unit}")
def test_layers_of_an_artifact(artifact: Artifact, graph: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    """All those that have a matrix are found, but for positions that a converter looked up itself."""
    checkpoint = open_checkpoint(str(micro_checkpoint))
    parts = components(checkpoint)
    (part,) = [part for part in parts if part.spec.name == graph]
    written = emit(part, artifact, tmp_path, open_batch=False, plan=float_plan(part, artifact.recipe))
    names = [module for module, _ in written.layers]
    wanted = {name.rpartition(".")[0] for name in weights_of(part)}
    assert len(names) == len(set(names)) and set(names) <= wanted
    assert all(name.endswith("position_embedding") for name in wanted - set(names))
    trajectory = record(checkpoint, parts, [Request("red apple", seed=5, steps=2)])[0]
    layers = open_layers(tmp_path, artifact.format, written)
    errors = compare_layers(graph, OriginalLayers(part), layers, trajectory)
    assert [error.module for error in errors] == names
    limit = 0.02 if written.arithmetic == "float16" else 2e-3
    assert max(error.largest for error in errors) < limit and first_over(errors, limit) is None


def test_the_first_in_the_order_of_execution_is_blamed(tiny_checkpoint: Path) -> None:
    """At the earliest step; those behind it err because it does."""
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    parts = components(checkpoint)
    trajectory = record(checkpoint, parts, [Request("red apple", seed=5, steps=3)])[0]
    sound, broken = OriginalLayers(parts[1]), OriginalLayers(parts[1])
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
    broken.module.get_submodule(layer).weight.mul_(1.5)  # type: ignore[operator]
    errors = compare_layers("unet", sound, broken, trajectory)
    found = first_over(errors, 0.01)
    assert found is not None and (found[0].module, found[1]) == (layer, 1)
    assert max(errors, key=lambda error: error.added).module == layer
    assert len(found[0].by_step) == len(recorded_steps(trajectory))
    assert first_over(errors, 10.0) is None


def test_what_is_not_finite_is_over_any_budget(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    parts = components(checkpoint)
    trajectory = record(checkpoint, parts, [Request("red apple", seed=5, steps=2)])[0]
    sound, broken = OriginalLayers(parts[2]), OriginalLayers(parts[2])
    broken.module.get_submodule("decoder.conv_out").weight.fill_(np.nan)  # type: ignore[operator]
    found = first_over(compare_layers("vae_decoder", sound, broken, trajectory), 1e9)
    assert found is not None and found[0].module == "decoder.conv_out"
