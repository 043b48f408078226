"""The best recipe of every size, against all recipes there are; and the whole search, on a tiny model."""

import itertools
import random

import numpy as np
import pytest

from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.quantize.search import Item, Option, solve, total_bytes, total_damage

BITS = (2, 4, 6, 8)


def synthetic(seed: int, weights: int, unit: int = 1) -> dict[Item, list[Option]]:
    """Weights of random sizes, whose damages fall with the bits, mostly."""
    rng = random.Random(seed)
    found: dict[Item, list[Option]] = {}
    for number in range(weights):
        size, worth = rng.randint(1, 30) * unit, 10 ** rng.uniform(-4, 0)
        found["unet", f"w{number}"] = [
            Option(Scheme("palette", bits), size * bits, worth * rng.uniform(0.5, 1.5) * 4.0**-bits) for bits in BITS
        ]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_better_at_any_size(seed: int) -> None:
    options = synthetic(seed, 5)
    frontier = solve(options)
    everything = [
        (sum(o.nbytes for o in plan), sum(o.damage for o in plan)) for plan in itertools.product(*options.values())
    ]
    smallest = min(size for size, _ in everything)
    for budget in range(smallest, max(size for size, _ in everything) + 2):
        plan = frontier.within(budget)
        assert plan is not None and list(plan) == list(options)
        assert total_bytes(plan) <= budget
        assert total_damage(plan) == pytest.approx(min(damage for size, damage in everything if size <= budget))
    assert frontier.within(smallest - 1) is None


@pytest.mark.parametrize("seed", range(4))
def test_nothing_smaller_does_so_little_damage(seed: int) -> None:
    options = synthetic(seed, 5)
    frontier = solve(options)
    everything = [
        (sum(o.nbytes for o in plan), sum(o.damage for o in plan)) for plan in itertools.product(*options.values())
    ]
    for _, wanted in everything[::37]:
        plan = frontier.under(wanted * 1.0001)
        assert plan is not None and total_damage(plan) <= wanted * 1.0001
        assert total_bytes(plan) == min(size for size, damage in everything if damage <= wanted * 1.0001)
    assert frontier.under(0.0) is None


def test_sizes_counted_in_portions_keep_the_budget_and_waste_little() -> None:
    """Far more bytes than portions: a budget holds to the byte, and more of it never does more damage."""
    options = synthetic(9, 60, unit=99_991)
    frontier = solve(options)
    assert frontier.portion > 100
    smallest = sum(min(o.nbytes for o in each) for each in options.values())
    largest = sum(max(o.nbytes for o in each) for each in options.values())
    assert frontier.within(smallest - 1) is None
    before = np.inf
    for budget in np.linspace(smallest, largest, 200).astype(int).tolist():
        plan = frontier.within(budget)
        assert plan is not None and total_bytes(plan) <= budget
        assert total_damage(plan) <= before
        before = total_damage(plan)
    exact = solve(
        {item: [Option(o.scheme, o.nbytes // 99_991, o.damage) for o in each] for item, each in options.items()}
    )
    middle = (smallest + largest) // 2
    coarse, fine = frontier.within(middle), exact.within(middle // 99_991)
    assert coarse is not None and fine is not None
    assert total_damage(coarse) <= 1.01 * total_damage(fine)


def test_a_measurement_that_failed_is_never_chosen() -> None:
    """Weights that give NaN."""
    options = {("unet", "w"): [Option(Scheme("palette", 4), 4, float("nan")), Option(FLOAT16, 16, 0.0)]}
    frontier = solve(options)
    assert frontier.within(15) is None
    plan = frontier.within(16)
    assert plan is not None and plan["unet", "w"].scheme == FLOAT16
