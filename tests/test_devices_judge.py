"""The gate on a stand-in, with the host's own runners in its place: what is judged, where it says that it ran, what it
leaves out and why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from support.command import call

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.devices.judge import STEPS, Standin, draw_on_host, judge_on
from pocketdiffusion.runtime.devices.ml_drift import REFUSES
from pocketdiffusion.runtime.devices.standins import load_standin
from pocketdiffusion.runtime.engines import load_runner, onnx, tflite
from pocketdiffusion.runtime.engines.facts import StandinRun
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.verify import core_of

NOWHERE = Launch("nowhere", (), (), {}, 1)


@dataclass(frozen=True)
class Here(Standin):
    """No stand-in: it runs on the host. `refused` graphs raise as ML Drift does."""

    refused: tuple[str, ...] = ()

    def open(self, folder: Path, way: StandinRun, graph: Graph) -> Runner:
        if graph.spec.name in self.refused:
            raise ProofError(f"gpu: {graph.path}: {REFUSES} GATHER_ND")
        return load_runner(folder, "onnx", graph)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def with_unit(bundle: Bundle, unit: str) -> Bundle:
    graphs = {name: g.model_copy(update={"compute_unit": unit}) for name, g in bundle.manifest.graphs["onnx"].items()}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"graphs": {"onnx": graphs}}))


def test_every_graph_and_one_picture_are_judged(bundle: Bundle) -> None:
    reports, skipped = judge_on(Here("arm64", NOWHERE, load_standin("arm64")), bundle, read_golden(bundle))
    assert {report.subject: report.cases for report in reports} == {
        "text_encoder.last_hidden_state": 2,
        "text_encoder.pooler_output": 2,
        "unet.out_sample": 6,
        "vae_decoder.sample": 1,
        "vae_encoder.latent_parameters": 1,
        "pictures.minimum": 1,
    }
    assert all(r.passed and r.device == "arm64" and r.arithmetic == "float32" for r in reports)
    assert reports[-1].psnr_db == inf  # the same runners drew it
    assert [(row.format, row.arithmetic) for row in skipped] == [("onnx", "float16")]


@dataclass(frozen=True)
class Wrong(Here):
    def open(self, folder: Path, way: StandinRun, graph: Graph) -> Runner:
        return (
            Overflowing(super().open(folder, way, graph))
            if graph.spec.name == "unet"
            else super().open(folder, way, graph)
        )


@dataclass(frozen=True)
class Overflowing:
    inner: Runner

    @property
    def spec(self):  # type: ignore[no-untyped-def]
        return self.inner.spec

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in self.inner(inputs).items()}
        for array in outputs.values():
            array.flat[3] = np.inf
        return outputs


def test_what_is_wrong_there_is_blamed_there(bundle: Bundle) -> None:
    with np.errstate(invalid="ignore"):
        reports, _ = judge_on(Wrong("arm64", NOWHERE, load_standin("arm64")), bundle, read_golden(bundle))
    failed = [report for report in reports if not report.passed]
    assert [report.subject for report in failed] == ["unet.out_sample", "pictures.minimum"]
    assert failed[0].describe().startswith("on arm64 in float32, onnx unet.out_sample (fp32) is not finite")


def test_a_format_that_it_cannot_run_is_not_run(bundle: Bundle) -> None:
    reports, skipped = judge_on(Here("gpu", NOWHERE, load_standin("gpu")), bundle, read_golden(bundle))
    assert reports == [] and [row.reason for row in skipped] == ["LiteRT's GPU accelerator takes TFLite files only"]


def test_a_refused_graph_fails_where_the_target_says_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "ENGINE", replace(onnx.ENGINE, standin_runs=tflite.ENGINE.standin_runs, not_run={}))
    for refused in ("text_encoder", "vae_decoder"):
        with pytest.raises(ProofError, match="GATHER_ND"):
            judge_on(
                Here("gpu", NOWHERE, load_standin("gpu"), refused=(refused,)),
                with_unit(bundle, "gpu"),
                read_golden(bundle),
            )


def test_a_refused_graph_is_not_run_where_the_target_says_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "ENGINE", replace(onnx.ENGINE, standin_runs=tflite.ENGINE.standin_runs, not_run={}))
    given = with_unit(bundle, "cpu")
    reports, skipped = judge_on(
        Here("gpu", NOWHERE, load_standin("gpu"), refused=("text_encoder",)), given, read_golden(bundle)
    )
    assert [row.subject for row in skipped] == ["text_encoder"] and "GATHER_ND" in skipped[0].reason
    assert {report.subject.partition(".")[0] for report in reports} == {
        "unet",
        "vae_decoder",
        "vae_encoder",
        "pictures",
    }
    assert all(report.passed and report.device == "gpu" for report in reports)
    reports, skipped = judge_on(
        Here("gpu", NOWHERE, load_standin("gpu"), refused=("unet",)), given, read_golden(bundle)
    )
    assert [row.subject for row in skipped] == ["unet", "pictures"]
    assert "pictures" not in {report.subject.partition(".")[0] for report in reports}


def test_the_picture_to_compare_with_keeps_the_facts_of_the_record(bundle: Bundle) -> None:
    recorded = read_golden(bundle)[0]
    drawn = draw_on_host(bundle, recorded, "onnx")
    assert (drawn.prompt, drawn.seed, drawn.steps) == (recorded.prompt, recorded.seed, STEPS)
    assert drawn.latents.shape[1:] == recorded.latents.shape[1:] and drawn.picture.shape == recorded.picture.shape


@pytest.mark.parametrize(
    ("target", "core"),
    [("pixel-8", "cortex-a710"), ("galaxy-a13", "cortex-a55"), ("generic", "cortex-a76"), ("gone", "cortex-a76")],
)
def test_the_core_is_the_target_s(target: str, core: str) -> None:
    assert core_of(target) == core


def test_verify_says_where_it_ran(tiny_bundle: Path) -> None:
    done = call("verify", tiny_bundle)
    assert done.returncode == 0 and " host " in done.stdout
