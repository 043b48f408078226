"""Verdicts in files: infinite numbers in valid JSON, and nothing said against the numbers."""

import json
from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

import pytest
from support.sample_bundle import verdict

from pocketdiffusion.runtime.bundle.verdicts import Kind, VerdictRecord, read_verdict, record_verdict


def test_verdicts_can_be_infinite_in_valid_json() -> None:
    good = record_verdict(verdict("unet"))
    text = good.model_dump_json()
    assert json.loads(text, parse_constant=pytest.fail)["psnr_db"] == "Infinity"
    assert VerdictRecord.model_validate_json(text, strict=True) == good
    assert read_verdict(good) == verdict("unet")
    broken = {**good.model_dump(), "psnr_db": -inf, "max_abs": nan, "finite": False, "passed": False}
    again = VerdictRecord.model_validate_json(VerdictRecord(**broken).model_dump_json(), strict=True)
    assert again.psnr_db == -inf and isnan(again.max_abs) and not again.passed


@pytest.mark.parametrize(
    "change",
    [{"psnr_db": 64.9}, {"psnr_db": nan}, {"max_abs": 0.023}, {"max_abs": nan}, {"finite": False}, {"cases": 0}],
)
def test_a_verdict_cannot_say_passed_against_its_numbers(change: dict[str, Any]) -> None:
    fields = record_verdict(verdict("unet", 70.0, 0.01)).model_dump()
    with pytest.raises(ValueError, match="its numbers say otherwise"):
        VerdictRecord(**{**fields, **change})
    with pytest.raises(ValueError, match="its numbers say otherwise"):
        VerdictRecord(**{**fields, "passed": False})
    assert not VerdictRecord(**{**fields, **change, "passed": False}).passed


def test_a_verdict_cannot_allow_a_larger_error_than_its_floor_does() -> None:
    fields = record_verdict(verdict("unet", 70.0, 0.01)).model_dump()
    with pytest.raises(ValueError, match="says max_abs_limit=1, its peak and its floor allow 0.02249"):
        VerdictRecord(**{**fields, "max_abs_limit": 1.0})


def test_the_rung_of_an_artifact_is_its_recipe() -> None:
    for kind in Kind:
        assert record_verdict(replace(verdict("unet"), rung=kind.value)).rung == kind
        assert replace(verdict("unet"), rung=kind.value).kind == kind
    assert verdict("unet").kind == Kind.ARTIFACT and record_verdict(verdict("unet")).rung == "fp16"
