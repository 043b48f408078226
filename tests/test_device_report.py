"""verify --device-report: what an app writes on a phone, beside the host's verdicts, through the command line."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.command import call, refusal
from support.sample_bundle import GRAPHS, write_sample

from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Manifest, UnsealedManifest
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.devices.report import DeviceReport, report_schema

SCHEMA = Path(__file__).parents[1] / "runtime/devices/device_report.schema.json"
KNOWN = Unit(status="bad", evidence="published", note="its drivers round twice")
Report = dict[str, Any]
Write = Callable[[Report], Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    folder.mkdir()
    draft = write_sample(folder)
    graphs = {name: graph.model_copy(update={"units": {"gpu": KNOWN}}) for name, graph in draft.graphs["onnx"].items()}
    return folder, seal(folder, UnsealedManifest(**{**dict(draft), "graphs": {"onnx": graphs}}))


@pytest.fixture
def report(bundle: tuple[Path, Manifest]) -> Report:
    """One that passes: each graph on the CPU, which the bundle ships for."""
    return {
        "version": 1,
        "bundle_id": bundle[1].bundle_id,
        "runtime_id": bundle[1].runtime_id,
        "device": {"maker": "Google", "model": "Pixel 8", "soc": "Tensor G3"},
        "os": {"name": "Android", "version": "14"},
        "app": {"name": "Pocket Diffusion", "version": "0.1.0"},
        "engines": [{"name": "onnxruntime", "version": "1.30.0"}],
        "graphs": [
            {
                "format": "onnx",
                "graph": name,
                "unit": "cpu",
                "arithmetic": "float32",
                "load_seconds": 0.25,
                "first_call_seconds": 1.5,
                "median_call_seconds": 1,
                "peak_bytes": 123_000_000,
                "outputs": [{"output": returned[0], "psnr_db": 91.5, "finite": True}],
                "error": None,
            }
            for name, (_, returned) in GRAPHS.items()
        ],
        "conformance": {"passed": ["tokens: many scripts", "noise: seed 7"], "failed": []},
        "pictures": [{"format": "onnx", "arithmetic": "float32", "psnr_db": 88.0}],
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(report: Report) -> Path:
        path = tmp_path / "pixel.json"
        path.write_text(json.dumps(report))
        return path

    return to_file


def on_unit(report: Report, graph: str, unit: str, **changes: Any) -> Report:
    """The report with that graph on another unit too."""
    (found,) = (each for each in report["graphs"] if each["graph"] == graph)
    return {**report, "graphs": [*report["graphs"], {**deepcopy(found), "unit": unit, **changes}]}


def output(report: Report, graph: str) -> Report:
    """The one output of that graph, to change."""
    (found,) = (each["outputs"][0] for each in report["graphs"] if each["graph"] == graph)
    assert isinstance(found, dict)
    return found


def failure(bundle: Path, file: Path) -> tuple[str, str]:
    """What is printed, and the one line on stderr, of a command that ends with 1."""
    done = call("verify", bundle, "--device-report", file)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    return done.stdout, done.stderr


# What it shows.


def test_a_report_stands_beside_the_hosts_verdicts(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    output(report, "vae_decoder")["psnr_db"] = "Infinity"
    done = call("verify", bundle[0], "--device-report", write(report))
    assert done.returncode == 0 and not done.stderr
    assert "Google Pixel 8 (Tensor G3), Android 14, Pocket Diffusion 0.1.0, onnxruntime 1.30.0" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "onnx unet" in line)
    for word in ("cpu, ships", "out_sample", "65", "92.6", "91.5", "0.25", "1.5", "123", "passed"):
        assert word in line
    assert "the onnx picture has 88.0 dB" in done.stdout
    assert "3 outputs passed on the compute units of" in done.stdout and "2 conformance vectors passed" in done.stdout


def test_it_says_which_graph_is_under_its_floor_and_on_which_unit(
    bundle: tuple[Path, Manifest], report: Report, write: Write
) -> None:
    output(report, "unet")["psnr_db"] = 64.9
    shown, said = failure(bundle[0], write(report))
    assert "onnx unet on cpu: out_sample has 64.9 dB, its floor is 65 dB, and the host 92.6 dB" in said
    assert "1 result failed on the phone" in said
    assert "UNDER ITS FLOOR: onnx unet on cpu" in shown and shown.count("passed") >= 2


def test_a_unit_that_the_bundle_does_not_ship_for_is_shown_and_no_failure(
    bundle: tuple[Path, Manifest], report: Report, write: Write
) -> None:
    bad = [{"output": "out_sample", "psnr_db": 19.4, "finite": True}]
    done = call("verify", bundle[0], "--device-report", write(on_unit(report, "unet", "gpu", outputs=bad)))
    assert done.returncode == 0 and not done.stderr
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("UNDER ITS FLOOR"))
    assert (
        "onnx unet on gpu: out_sample has 19.4 dB" in said and "not the compute unit that the bundle ships for" in said
    )
    assert "known: its drivers round twice" in said


def test_a_unit_that_refuses_a_graph(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    error = "no kernel\nfor GroupNorm"
    refused = on_unit(report, "unet", "npu", outputs=[], error=error, first_call_seconds=None, load_seconds=None)
    done = call("verify", bundle[0], "--device-report", write(refused))
    assert done.returncode == 0
    assert (
        "REFUSED: onnx unet on npu was refused: no kernel for GroupNorm (not the compute unit that the bundle ships for"
        in done.stdout
    )
    (own,) = (each for each in report["graphs"] if each["graph"] == "unet")
    own |= {"outputs": [], "error": error}
    _, said = failure(bundle[0], write(report))
    assert "onnx unet on cpu was refused: no kernel for GroupNorm" in said


def test_what_is_not_finite_fails_whatever_the_decibels(
    bundle: tuple[Path, Manifest], report: Report, write: Write
) -> None:
    output(report, "unet")["finite"] = False
    assert "out_sample is not finite" in failure(bundle[0], write(report))[1]
    output(report, "unet").update(finite=True, psnr_db="-Infinity")
    assert "out_sample has -inf dB" in failure(bundle[0], write(report))[1]


def test_float16_arithmetic_has_its_own_floor(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    for each in report["graphs"]:
        each["arithmetic"] = "float16"
        each["outputs"][0]["psnr_db"] = 58.1
    done = call("verify", bundle[0], "--device-report", write(report))
    assert done.returncode == 0, done.stderr
    output(report, "unet")["psnr_db"] = 57.9
    assert "its floor is 58 dB" in failure(bundle[0], write(report))[1]


def test_a_conformance_vector_that_failed(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    report["conformance"]["failed"] = ["padding\nwith 0"]
    report["device"]["maker"] = "[/bold] \t Google"
    shown, said = failure(bundle[0], write(report))
    assert "[/bold] Google Pixel 8" in shown
    assert "conformance vector FAILED: padding with 0" in shown and "padding with 0 failed" in said


def test_a_picture_under_its_floor(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    report["pictures"][0]["psnr_db"] = 24.9
    assert (
        "the onnx picture has 24.9 dB against the original's, its floor is 25 dB"
        in failure(bundle[0], write(report))[1]
    )


def test_what_was_not_run_is_no_success(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    report["graphs"] = [each for each in report["graphs"] if each["graph"] != "unet"]
    done = call("verify", bundle[0], "--device-report", write(report))
    assert (
        done.returncode == 0
        and "not measured: onnx unet on cpu, the compute unit that the bundle ships it for" in done.stdout
    )
    for each in report["graphs"]:
        each["unit"] = "gpu"
    assert "no graph was run on its compute unit in the bundle" in failure(bundle[0], write(report))[1]
    report["graphs"] = []
    assert "no graph was run on its compute unit" in failure(bundle[0], write(report))[1]


# What it refuses.


def test_a_bundle_without_its_proof(
    bundle: tuple[Path, Manifest], report: Report, write: Write, tmp_path: Path
) -> None:
    copy_runtime_part(bundle[0], tmp_path / "part")
    said = refusal("verify", tmp_path / "part", "--device-report", write(report))
    assert "proof part not installed" in said


def test_the_report_of_another_bundle(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    report["bundle_id"] = "0" * 64
    done = call("verify", bundle[0], "--device-report", write(report))
    assert (
        done.returncode == 0 and f"the phone ran the bundle {'0' * 16}, which has the same runtime part" in done.stdout
    )
    report["runtime_id"] = "0" * 64
    assert f"another bundle, runtime_id {'0' * 16}, and this one has" in refusal(
        "verify", bundle[0], "--device-report", write(report)
    )


def test_a_newer_format_is_told_before_its_fields(bundle: tuple[Path, Manifest], tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_text('{"version": 2, "everything": "else"}')
    assert "version 2, and this pocketdiffusion reads versions up to 1" in refusal(
        "verify", bundle[0], "--device-report", path
    )


def test_fields_that_are_not_known_are_passed_over(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    report["battery"] = report["device"]["colour"] = report["graphs"][0]["watts"] = 3
    assert call("verify", bundle[0], "--device-report", write(report)).returncode == 0


def test_no_other_judging_beside_it(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    said = refusal("verify", bundle[0], "--device-report", write(report), "--device", "arm64")
    assert "leave out --against and --device" in said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"bundle passed", "it is not JSON"),
        (b'{"version": 1', "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b'{"version": 1, "peak": NaN}', "NaN is not JSON"),
        (b'{"version": 1, "version": 1}', "twice"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "has no version"),
        (b'{"version": "1"}', "has no version"),
        (b'{"version": true}', "has no version"),
        (b'{"version": 0}', "version"),
        (b'{"version": 1}', "Field required"),
    ],
)
def test_files_that_are_no_report(bundle: tuple[Path, Manifest], raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(raw)
    found = refusal("verify", bundle[0], "--device-report", path)
    assert said in found and str(path) in found and len(found) < 400


def test_places_that_cannot_be_read(bundle: tuple[Path, Manifest], tmp_path: Path) -> None:
    assert "No such file" in refusal("verify", bundle[0], "--device-report", tmp_path / "absent.json")
    assert "directory" in refusal("verify", bundle[0], "--device-report", tmp_path)


WRONG: list[tuple[tuple[Any, ...], Any]] = [
    (("bundle_id",), "0" * 63),
    (("device", "maker"), ""),
    (("device", "model"), 8),
    (("os",), "Android 14"),
    (("engines",), []),
    (("graphs", 0, "unit"), None),
    (("graphs", 0, "unit"), "[/bold]"),
    (("graphs", 0, "arithmetic"), "bfloat16"),
    (("graphs", 0, "load_seconds"), -1),
    (("graphs", 0, "load_seconds"), "0.25"),
    (("graphs", 0, "peak_bytes"), 1.5),
    (("graphs", 0, "outputs", 0, "psnr_db"), None),
    (("graphs", 0, "outputs", 0, "psnr_db"), "91.5"),
    (("graphs", 0, "outputs", 0, "finite"), 1),
    (("conformance", "passed"), {"noise": True}),
    (("pictures", 0, "psnr_db"), []),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_a_field_of_the_wrong_type_is_named(
    bundle: tuple[Path, Manifest], report: Report, write: Write, where: tuple[Any, ...], value: Any
) -> None:
    checker = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    put(report, where, value)
    assert list(checker.iter_errors(report))
    assert ".".join(map(str, where)) in refusal("verify", bundle[0], "--device-report", write(report))


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("app", "name"), "\ud800", "Invalid JSON"),
        (("graphs", 0, "outputs", 0, "psnr_db"), "NaN", "graphs.0.outputs.0.psnr_db"),
        (
            ("graphs", 0, "format"),
            "coreml",
            "graphs.0 is the coreml graph text_encoder, which the bundle does not have",
        ),
        (
            ("graphs", 0, "graph"),
            "control\nnet",
            "graphs.0 is the onnx graph control net, which the bundle does not have",
        ),
        (("graphs", 0, "outputs"), [], "graphs.0.outputs: onnx text_encoder on cpu has none, not last_hidden_state"),
        (("graphs", 0, "outputs", 0, "output"), "pooled", "has pooled, not last_hidden_state"),
        (("graphs", 0, "error"), "out of memory", "not none, since there is an error"),
        (("graphs", 0, "arithmetic"), "int8", "states arithmetic int8 for onnx text_encoder on cpu"),
        (("pictures", 0, "format"), "tflite", "pictures.0.format is tflite, and the bundle has no such graphs"),
    ],
)
def test_contradictions_are_refused(
    bundle: tuple[Path, Manifest], report: Report, write: Write, where: tuple[Any, ...], value: Any, said: str
) -> None:
    put(report, where, value)
    assert said in refusal("verify", bundle[0], "--device-report", write(report))


def test_a_unit_that_is_there_twice(bundle: tuple[Path, Manifest], report: Report, write: Write) -> None:
    said = refusal("verify", bundle[0], "--device-report", write(on_unit(report, "unet", "cpu")))
    assert "onnx unet cpu twice" in said


def put(report: Report, where: tuple[Any, ...], value: Any) -> None:
    part: Any = report
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value


# The schema.


def test_schema_file_is_current() -> None:
    module = "pocketdiffusion.runtime.devices.report"
    command = f"import json; from {module} import *; print(json.dumps(report_schema(), indent=2))"
    path = "runtime/devices/device_report.schema.json"
    assert json.loads(SCHEMA.read_text()) == report_schema(), f"python -c '{command}' > {path}"


def test_schema_asks_for_every_field_and_describes_it(report: Report) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    assert not list(checker.iter_errors(report))
    assert DeviceReport.model_validate_json(json.dumps(report), strict=True).model_dump(mode="json") == report
    for part in (
        report,
        report["device"],
        report["graphs"][0],
        report["graphs"][0]["outputs"][0],
        report["pictures"][0],
    ):
        for name in list(part):
            value = part.pop(name)
            assert list(checker.iter_errors(report)), f"the schema does not ask for {name}"
            part[name] = value
    for record in (schema, *schema["$defs"].values()):
        for name, field in record["properties"].items():
            assert field.get("description"), name
