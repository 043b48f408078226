import hashlib
import json
import subprocess
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from support.sample_bundle import steps, verdict, write_sample

from pocketdiffusion.runtime.bundle.bundle import seal
from pocketdiffusion.runtime.bundle.file_table import FileEntry, bundle_id, check_table
from pocketdiffusion.runtime.bundle.manifest import Draft, Manifest, Verdict, decode, encode, manifest_schema
from pocketdiffusion.runtime.bundle.step_columns import StepColumns, pack_steps, unpack_steps
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

SCHEMA = Path(__file__).parents[1] / "runtime/bundle/manifest.schema.json"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("sample")
    return seal(folder, write_sample(folder))


def fields_of(manifest: Manifest) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(encode(manifest))
    return fields


def schema_errors(fields: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [error.message for error in checker.iter_errors(fields)]


def test_schema_file_is_current() -> None:
    module = "pocketdiffusion.runtime.bundle.manifest"
    say = f"import json; from {module} import *; print(json.dumps(manifest_schema(), indent=2))"
    assert json.loads(SCHEMA.read_text()) == manifest_schema(), (
        f"python -c '{say}' > runtime/bundle/manifest.schema.json"
    )


def test_schema_accepts_a_real_manifest(manifest: Manifest) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    assert schema_errors(fields_of(manifest)) == []


def test_schema_wants_every_field_that_is_written(manifest: Manifest) -> None:
    fields = fields_of(manifest)
    for part in (
        fields,
        fields["graphs"]["onnx"]["unet"],
        fields["verdicts"][0],
        fields["graphs"]["onnx"]["unet"]["spec"],
    ):
        for name in list(part):
            value = part.pop(name)
            assert schema_errors(fields), f"the schema does not ask for {name}"
            part[name] = value
    assert schema_errors(fields) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("version",), 2),
        (("version",), True),
        (("secret",), 1),
        (("model", "prediction_type"), "velocity"),
        (("model", "fingerprint"), "0" * 63),
        (("latents", "channels"), 0),
        (("latents", "channels"), "4"),
        (("latents", "height"), 8.5),
        (("graphs", "onnx", "unet", "storage"), "bfloat16"),
        (("graphs", "onnx", "unet", "path"), "../unet.onnx"),
        (("graphs", "onnx", "unet", "spec", "inputs", 0, "extra"), 1),
        (("files", "../up"), {"sha256": "0" * 64, "size": 1}),
        (("files", "tokenizer/vocab.json", "size"), -1),
        (("verdicts", 0, "psnr_db"), "Infinite"),
        (("verdicts", 0, "psnr_db"), None),
        (("step_tables", 0, "p"), ["0.5"]),
        (("golden", 0, "arrays", "latents", "dtype"), "float128"),
        (("vae", "scaling_factor"), "Infinity"),
    ],
)
def test_schema_and_reader_refuse_alike(manifest: Manifest, where: tuple[Any, ...], value: Any) -> None:
    fields = fields_of(manifest)
    part = fields
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    assert schema_errors(fields)
    with pytest.raises((ValueError, UserError)):
        decode(json.dumps(fields).encode())


def test_round_trip_is_exact(manifest: Manifest) -> None:
    raw = encode(manifest)
    again = decode(raw)
    assert again == manifest
    assert encode(again) == raw
    assert raw.endswith(b"}\n") and raw.count(b"\n") == 1
    graphs = {format: dict(reversed(named.items())) for format, named in manifest.graphs.items()}
    assert encode(manifest.model_copy(update={"graphs": graphs})) == raw
    assert again.graphs["onnx"]["unet"].spec.inputs[0].shape == ("batch", 4, 8, 8)
    assert again.step_tables == (steps(1), steps(2), steps(4))
    assert again.golden[0].prompt == "un café rouge 🍎" and "🍎".encode() in raw


def test_step_tables_keep_every_bit() -> None:
    bits = np.random.default_rng(3).bytes(8 * 3000)
    values = [*np.frombuffer(bits), -0.0, 5e-324, 1.7976931348623157e308, 1e22, 0.1 + 0.2, 2.0**53, 1.0]
    finite = [float(value) for value in values if np.isfinite(value)]
    rows = zip(*[iter(finite)] * 7, strict=False)
    made = tuple(Step(t, s, p, q, a, (b,), c) for t, s, p, q, a, b, c in rows)
    table = StepTable("euler", "v_prediction", len(made), 0, 14.6146, 1.0, 14.6146, made)
    text = pack_steps(table).model_dump_json()
    again = unpack_steps(StepColumns.model_validate_json(text, strict=True))
    assert repr(again) == repr(table)  # repr tells -0.0 from 0.0


def test_step_tables_that_cannot_be_run_are_refused() -> None:
    table = steps(2)
    with pytest.raises(ValueError, match="before its first row"):
        pack_steps(replace(table, rows=(replace(table.rows[0], b=(0.5, 0.5)), table.rows[1])))
    with pytest.raises(ValueError, match="finite"):
        pack_steps(replace(table, rows=(replace(table.rows[0], p=inf), table.rows[1])))
    columns = pack_steps(table).model_dump()
    with pytest.raises(ValueError, match="differ in length"):
        StepColumns.model_validate({**columns, "q": columns["q"][:1]})


def test_verdicts_can_be_infinite_in_valid_json() -> None:
    good = verdict("unet")
    text = good.model_dump_json()
    assert json.loads(text, parse_constant=pytest.fail)["psnr_db"] == "Infinity"
    assert Verdict.model_validate_json(text, strict=True) == good
    broken = {**good.model_dump(), "psnr_db": -inf, "max_abs": nan, "finite": False, "passed": False}
    again = Verdict.model_validate_json(Verdict(**broken).model_dump_json(), strict=True)
    assert again.psnr_db == -inf and isnan(again.max_abs) and not again.passed


@pytest.mark.parametrize(
    "change",
    [{"psnr_db": 64.9}, {"psnr_db": nan}, {"max_abs": 0.021}, {"max_abs": nan}, {"finite": False}, {"cases": 0}],
)
def test_a_verdict_cannot_say_passed_against_its_numbers(change: dict[str, Any]) -> None:
    fields = verdict("unet", 70.0, 0.01).model_dump()
    with pytest.raises(ValueError, match="its numbers say otherwise"):
        Verdict(**{**fields, **change})
    with pytest.raises(ValueError, match="its numbers say otherwise"):
        Verdict(**{**fields, "passed": False})
    assert not Verdict(**{**fields, **change, "passed": False}).passed


def test_bundle_id_is_what_sha256sum_prints(tmp_path: Path) -> None:
    manifest = seal(tmp_path, write_sample(tmp_path))
    listing = "find onnx tokenizer golden -type f | LC_ALL=C sort | xargs sha256sum"
    lines = subprocess.run(listing, shell=True, cwd=tmp_path, check=True, capture_output=True).stdout
    assert manifest.bundle_id == hashlib.sha256(lines).hexdigest()
    assert bundle_id({**manifest.files, "report/times.json": FileEntry(sha256="1" * 64, size=3)}) == manifest.bundle_id
    assert bundle_id({**manifest.files, "onnx/times.json": FileEntry(sha256="1" * 64, size=3)}) != manifest.bundle_id


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("onnx/model.onnx", "onnx/Model.onnx"), "differ in case alone"),
        (("onnx/a.bin", "ONNX/b.bin"), "differ in case alone"),
        (("onnx", "onnx/a.bin"), "both a file and a folder"),
        (("onnx/a.bin", "onnx/a.bin/b"), "both a file and a folder"),
        (("Manifest.JSON",), "its own digest"),
        (("manifest.sha256",), "its own digest"),
    ],
)
def test_file_tables_that_no_disk_can_hold(paths: tuple[str, ...], said: str) -> None:
    entry = FileEntry(sha256="0" * 64, size=0)
    for order in (paths, paths[::-1]):
        with pytest.raises(ValueError, match=said):
            check_table({path: entry for path in order})
    check_table({f"{path}.{n}": entry for n, path in enumerate(("golden/0/x", "golden/0x", "golden/1/x"))})


PATHS = (
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "a/",
    "./a",
    "a\\b",
    "C:a",
    ".git/x",
    "a/.b",
    "a.",
    "a b",
    "-x",
    "é",
    "",
    "a\n",
)


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_leave_the_bundle_are_refused(manifest: Manifest, path: str) -> None:
    fields = fields_of(manifest)
    fields["files"][path] = {"sha256": "0" * 64, "size": 0}
    with pytest.raises(ValueError, match="pattern"):
        decode(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"version":1', b'"version":1,"version":1', "twice"),
        (b'"scaling_factor":0.18215', b'"scaling_factor":NaN', "not JSON"),
        (b'"scaling_factor":0.18215', b'"scaling_factor":1e999', "finite"),
        (b'"seed":9223372036854775808', b'"seed":9223372036854775808.5', "integer"),
        (b'"path":"golden/0/sample.bin"', b'"path":"golden/2/sample.bin"', "not in the file table"),
        (b'"shape":[1,3,16,16]', b'"shape":[1,3,16,17]', "3264 bytes"),
        (b'"name":"unet"', b'"name":"vae_decoder"', "calls itself"),
        (b'"path":"onnx/unet/model.onnx"', b'"path":"onnx/unet/model.ort"', "its own file"),
        (b'"bundle_id":"', b'"bundle_id":"' + b"0" * 64 + b'","x":"', "Extra inputs"),
    ],
)
def test_contradictions_are_refused(manifest: Manifest, old: bytes, new: bytes, said: str) -> None:
    raw = encode(manifest)
    assert old in raw
    with pytest.raises(ValueError, match=said):
        decode(raw.replace(old, new))


def test_a_wrong_bundle_id_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="bundle_id is not the digest"):
        decode(encode(manifest).replace(manifest.bundle_id.encode(), b"0" * 64))


@pytest.mark.parametrize(("version", "said"), [(2, "install a newer"), (0, "export the model again")])
def test_other_versions_say_what_to_do(version: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        decode(json.dumps({"version": version, "whatever": "else"}).encode())


def test_records_do_not_change(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="frozen"):
        manifest.latents.width = 16
    with pytest.raises(ValueError, match="Extra inputs"):
        Draft.model_validate({**manifest.model_dump(), "files": {}})
