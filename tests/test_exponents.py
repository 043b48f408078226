"""Which powers of two bring a graph's results into float16."""

import pytest

from pocketdiffusion.quantize.exponents import Flow, exponents
from pocketdiffusion.runtime.errors import ProofError

Ties = tuple[tuple[str, str], ...]


def flow(largest: dict[str, float], ties: Ties = (), fixed: str = "", squared: str = "") -> Flow:
    return Flow(largest, ties, frozenset(fixed), frozenset(squared))


def test_what_fits_needs_none() -> None:
    assert exponents(flow({"a": 16000.0, "b": 0.0}, (("a", "b"),))) == {}


def test_the_least_power_of_two_that_leaves_room() -> None:
    assert exponents(flow({"a": 16377.0})) == {"a": 1}
    assert exponents(flow({"a": 65504.0})) == {"a": 2}
    assert exponents(flow({"a": 1e6})) == {"a": 6}


def test_what_is_added_has_one_exponent_that_of_the_largest() -> None:
    assert exponents(flow({"a": 1.0, "b": 1e5, "c": 2.0, "d": 1.0}, (("a", "c"), ("b", "c")))) == dict.fromkeys(
        "abc", 3
    )


def test_a_square_must_fit_as_well() -> None:
    assert exponents(flow({"a": 127.0}, squared="a")) == {}
    assert exponents(flow({"a": 300.0}, squared="a")) == {"a": 2}


def test_what_is_not_linear_has_none_and_says_so() -> None:
    assert exponents(flow({"a": 5.0, "b": 300.0}, (("a", "b"),), fixed="a", squared="b")) == {}
    assert exponents(flow({"a": 2e4, "b": 1e5}, fixed="a")) == {"b": 3}
    with pytest.raises(ProofError, match="b has the value 1e.05, beyond float16, and cannot be scaled"):
        exponents(flow({"a": 5.0, "b": 1e5}, (("a", "b"),), fixed="a"))
