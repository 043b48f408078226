"""What every recipe must do: decide for every matrix of a model, in every format, and state what it rests on.
test_backends.py has which format holds it, and what its refusal says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize.floors import floor_of
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Scheme

BY_ITSELF = [name for name in recipe_names() if name != "mixed"]  # which is searched, and has no plan of its own
PROFILES = [(name, profile) for name in backend_names() for profile in find_backend(name).profiles]


class Unmeasured:
    """A component in which every weight costs the same."""

    def __init__(self, component: str, format: str, profile: str, names: list[str]) -> None:
        self.component, self.format, self.profile, self.names = component, format, profile, names

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        return dict.fromkeys(self.names, 1e-6)


@pytest.fixture(scope="module")
def parts(micro_checkpoint: Path) -> list[Component]:
    return components(open_checkpoint(str(micro_checkpoint), progress=lambda line: None))


@pytest.mark.parametrize(("format", "profile"), PROFILES)
@pytest.mark.parametrize("name", BY_ITSELF)
def test_it_decides_for_every_matrix(name: str, format: str, profile: str, parts: list[Component]) -> None:
    for part in parts:
        weights = weights_of(part)
        schemes = load_recipe(name).plan(weights, Unmeasured(part.spec.name, format, profile, list(weights)))
        assert schemes.keys() == weights.keys()
        activations = {scheme.activation for scheme in schemes.values()}
        assert len(activations - {"float"}) <= 1
        tables = [scheme for key, scheme in schemes.items() if weights[key].operator == "embedding"]
        assert {scheme.activation for scheme in tables} <= {"float"}


@pytest.mark.parametrize("name", BY_ITSELF)
def test_a_lossy_one_has_floors_with_evidence(name: str, parts: list[Component]) -> None:
    recipe = load_recipe(name)
    weights = weights_of(parts[0])
    schemes = recipe.plan(weights, Unmeasured(parts[0].spec.name, "onnx", "std", list(weights)))
    lossy = not set(schemes.values()) <= {FLOAT32, FLOAT16}
    assert (recipe.floors is not None) == lossy
    if recipe.floors is not None:
        assert all(floor_of(name, recipe.floors, part.spec.name, part.stage) > 6 for part in parts)
        assert recipe.floors.pictures[0] >= recipe.floors.pictures[1] > 5
        assert "measured" in recipe.floors.evidence and len(recipe.floors.evidence) > 60
