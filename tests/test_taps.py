"""The first layer that errs is blamed; that artifacts' layers give what the original's do, conformance/ shows."""

from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.export.checks.layer_errors import OriginalLayers, compare_layers, first_over
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.runtime.verify.recording import recorded_steps

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process


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
