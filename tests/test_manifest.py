"""The JSON files of a bundle: one schema and one spelling for each, read strictly, refused by name."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError
from support.forgery import fit_ids, forge, reseal
from support.sample_bundle import TABLES, write_sample

from pocketdiffusion.runtime.bundle.bundle import open_unproven
from pocketdiffusion.runtime.bundle.json_files import decode, encode
from pocketdiffusion.runtime.bundle.layout import Index
from pocketdiffusion.runtime.bundle.manifest import Manifest, UnsealedManifest
from pocketdiffusion.runtime.bundle.schemas import SCHEMAS, make_schema, schema_path
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.errors import PocketDiffusionError, ProofError, UserError
from pocketdiffusion.runtime.record import Seed
from pocketdiffusion.runtime.verify.known_units import warn_of_units

PATHS_OF = {"manifest": "manifest.json", "pipeline": "pipeline/onnx.json", "proof": "proof.json"}
UNET = ("graphs", "onnx", "unet")


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def manifest(sealed: Path) -> Manifest:
    return open_unproven(sealed).manifest


def fields_of(folder: Path, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / PATHS_OF[name]).read_bytes())
    return fields


def schema_errors(name: str, fields: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator(json.loads(schema_path(name).read_text()))
    return [error.message for error in checker.iter_errors(fields)]


def put(fields: Any, where: tuple[Any, ...], value: Any) -> None:
    for key in where[:-1]:
        fields = fields[key]
    fields[where[-1]] = value


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_files_are_current(name: str) -> None:
    current = json.loads(schema_path(name).read_text())
    assert current == make_schema(name), "python -m pocketdiffusion.runtime.bundle.schemas"
    jsonschema.Draft202012Validator.check_schema(current)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_accept_what_is_written(sealed: Path, name: str) -> None:
    assert schema_errors(name, fields_of(sealed, name)) == []


def properties(part: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a schema, however deep."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "properties":
                yield from ((f"{where}/{field}", content) for field, content in value.items())
            yield from properties(value, f"{where}/{key}")
    elif isinstance(part, list):
        for value in part:
            yield from properties(value, where)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_has_a_description(name: str) -> None:
    found = dict(properties(make_schema(name)))
    assert len(found) > 25
    assert [where for where, field in found.items() if not field.get("description")] == []


def test_a_field_without_a_description_would_be_found() -> None:
    schema = make_schema("pipeline")
    del schema["$defs"]["Vae"]["properties"]["scaling_factor"]["description"]
    assert [where for where, field in properties(schema) if not field.get("description")] == [
        "/$defs/Vae/scaling_factor"
    ]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("manifest", [(), ("model",), ("proof",), ("picture",), ("files", "proof.json"), ("golden", "vae_decoder")]),
        ("pipeline", [(), ("graphs", "unet"), ("graphs", "unet", "spec"), ("tokenizers", 0), ("steps",), ("vae",)]),
        ("proof", [(), ("verdicts", 0), UNET, ("golden", 0)]),
    ],
)
def test_schemas_want_every_field_that_is_written(sealed: Path, name: str, places: list[tuple[Any, ...]]) -> None:
    fields = fields_of(sealed, name)
    for place in places:
        part = fields
        for key in place:
            part = part[key]
        for field in list(part):
            value = part.pop(field)
            assert schema_errors(name, fields), f"the schema does not ask for {field}"
            part[field] = value
    assert schema_errors(name, fields) == []


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("manifest", ("version",), 3),
        ("manifest", ("version",), True),
        ("manifest", ("minor",), -1),
        ("manifest", ("model", "fingerprint"), "0" * 63),
        ("manifest", ("files", "../up"), {"sha256": "0" * 64, "size": 1, "role": "runtime"}),
        ("manifest", ("files", "steps/tables.bin", "size"), -1),
        ("manifest", ("files", "steps/tables.bin", "role"), 1),
        ("manifest", ("proof", "kind"), None),
        ("manifest", ("proof", "worst", "margin_db"), "Infinity"),
        ("manifest", ("picture", "seed"), 42),
        ("manifest", ("picture", "seed"), "4.5"),
        ("manifest", ("golden", "vae_decoder", "inputs", "latent_sample", "dtype"), "float128"),
        ("pipeline", ("latents", "channels"), 0),
        ("pipeline", ("latents", "channels"), "4"),
        ("pipeline", ("latents", "height"), 8.5),
        ("pipeline", ("graphs", "unet", "storage"), 16),
        ("pipeline", ("graphs", "unet", "path"), "../unet.onnx"),
        ("pipeline", ("graphs", "unet", "spec", "inputs", 0, "dtype"), "bfloat16"),
        ("pipeline", ("tokenizers",), []),
        ("pipeline", ("tokenizers", 0, "kind"), "t5"),
        ("pipeline", ("vae", "scaling_factor"), "Infinity"),
        ("pipeline", ("vae", "tile_size"), 0),
        ("pipeline", ("defaults", "strength"), 0),
        ("pipeline", ("preview", "bias"), [0.5, 0.5]),
        ("proof", ("verdicts", 0, "psnr_db"), "Infinite"),
        ("proof", ("verdicts", 0, "psnr_db"), None),
        ("proof", ("golden", 0, "arrays", "latents", "shape"), [-1]),
    ],
)
def test_schemas_and_reader_refuse_alike(bundle: Path, name: str, where: tuple[Any, ...], value: Any) -> None:
    fields = fields_of(bundle, name)
    put(fields, where, value)
    assert schema_errors(name, fields)
    if name == "manifest":
        reseal(bundle, lambda manifest: put(manifest, where, value))
    else:
        forge(bundle, PATHS_OF[name], lambda content: put(content, where, value))
    with pytest.raises(PocketDiffusionError) as caught:
        open_unproven(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("manifest", ("secret",)),
        ("manifest", ("model", "secret")),
        ("manifest", ("files", "proof.json", "secret")),
        ("pipeline", ("secret",)),
        ("pipeline", ("graphs", "unet", "secret")),
        ("pipeline", ("graphs", "unet", "spec", "inputs", 0, "secret")),
        ("pipeline", ("tokenizers", 0, "secret")),
        ("proof", ("verdicts", 0, "secret")),
    ],
)
def test_fields_of_a_later_minor_version_are_passed_over(
    bundle: Path, manifest: Manifest, name: str, where: tuple[Any, ...]
) -> None:
    fields = fields_of(bundle, name)
    put(fields, where, {"new": 1})
    assert schema_errors(name, fields) == []
    forge(bundle, PATHS_OF[name], lambda content: put(content, where, {"new": 1}))
    forge(bundle, "manifest.json", lambda content: put(content, ("minor",), 7))
    again = open_unproven(bundle).manifest
    assert again.minor == 7 and again.graphs == manifest.graphs and again.verdicts == manifest.verdicts


INFORMATION: list[tuple[str, tuple[str | int, ...]]] = [
    ("manifest", ("model", "prediction_type")),
    ("manifest", ("proof", "kind")),
    ("manifest", ("files", "report/report.html", "role")),
    ("pipeline", ("steps", "prediction_type")),
    ("pipeline", ("graphs", "unet", "storage")),
    ("pipeline", ("graphs", "unet", "arithmetic")),
    ("pipeline", ("graphs", "unet", "units", "npu", "status")),
    ("pipeline", ("graphs", "unet", "units", "npu", "evidence")),
    ("proof", ("verdicts", 0, "device")),
]


@pytest.mark.parametrize(("name", "where"), INFORMATION)
def test_values_that_inform_are_kept_where_they_are_not_known(bundle: Path, name: str, where: tuple[Any, ...]) -> None:
    unit = {"status": "bad", "evidence": "published", "note": "seen"}
    forge(bundle, PATHS_OF["pipeline"], lambda content: content["graphs"]["unet"].update(units={"npu": unit}))
    fields = fields_of(bundle, name)
    put(fields, where, "later")
    assert schema_errors(name, fields) == []

    def change(manifest: dict[str, Any]) -> None:
        put(manifest, where, "later")
        fit_ids(manifest)

    if name == "manifest":
        reseal(bundle, change)
    else:
        forge(bundle, PATHS_OF[name], lambda content: put(content, where, "later"))
    if where[-1] in ("storage", "arithmetic"):  # which its verdicts have as well

        def judged(proof: dict[str, Any]) -> None:
            for each in proof["verdicts"]:
                if each["subject"].startswith("unet"):
                    put(each, where[-1:], "later")

        forge(bundle, PATHS_OF["proof"], judged)
    read = open_unproven(bundle).manifest
    warn_of_units(read)
    first = read.graphs["onnx"]["unet"]
    places = [read.model, read.proof, *read.files.values(), read.step_tables.index, first, *first.units.values()]
    assert "later" in [getattr(place, where[-1], None) for place in (*places, *read.verdicts)]
    with pytest.raises(ValueError, match="storage"):
        type(first)(**{**dict(first), "storage": "later"})


@pytest.mark.parametrize(
    ("name", "where", "value", "said"),
    [
        ("pipeline", ("tokenizers", 0, "kind"), "t5", "the tokenizer kind 't5' is not known"),
        (
            "pipeline",
            ("graphs", "unet", "spec", "inputs", 0, "dtype"),
            "bfloat16",
            "the dtype 'bfloat16' of unet's sample",
        ),
        ("pipeline", ("program", "guidance"), "perturbed", "perturbed"),
        ("pipeline", ("program", "absent_negative"), "ones", "ones"),
        ("pipeline", ("program", "draws"), ["start", "dice"], "dice"),
        ("pipeline", ("program", "stages", 0, "stage"), "dream", "dream"),
        ("pipeline", ("program", "stages", 0, "when"), ["pose"], "pose"),
        ("pipeline", ("program", "stages", 0, "calls", 0, "inputs"), {"input_ids": "melody"}, "melody"),
        (
            "manifest",
            ("golden", "vae_decoder", "outputs", "sample", "dtype"),
            "int4",
            "the dtype 'int4' is not known",
        ),
    ],
)
def test_what_this_reader_cannot_run_is_refused_by_name(
    bundle: Path, name: str, where: tuple[Any, ...], value: Any, said: str
) -> None:
    """The user's bundle is too new, not corrupt: exit code 2, with place and value."""
    forge(bundle, PATHS_OF[name], lambda content: put(content, where, value))
    with pytest.raises(UserError, match=said) as caught:
        open_unproven(bundle)
    place = bundle if "program" in where else bundle / PATHS_OF[name]  # a program is checked beside its graphs
    assert str(place) in str(caught.value) and "install a newer" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3}, "is a bundle of version 3, and this pocketdiffusion reads version 2: install a newer"),
        ({"version": 1}, "is a bundle of version 1, and this pocketdiffusion reads version 2: export the model"),
    ],
)
def test_other_major_versions_say_what_to_do(bundle: Path, change: dict[str, Any], said: str) -> None:
    forge(bundle, "manifest.json", lambda fields: fields.update({**change, "whatever": "else"}))
    with pytest.raises(UserError, match=said):
        open_unproven(bundle)


def test_round_trip_is_exact(sealed: Path, manifest: Manifest, tmp_path: Path) -> None:
    raw = (sealed / "manifest.json").read_bytes()
    index = decode(raw, Index)
    assert encode(index) == raw and raw.endswith(b"}\n") and raw.count(b"\n") == 1
    graphs = {format: dict(reversed(named.items())) for format, named in manifest.graphs.items()}
    again = Path(shutil.copytree(sealed, tmp_path / "again"))
    assert seal(again, manifest.model_copy(update={"graphs": graphs})) == manifest
    assert all((again / path).read_bytes() == (sealed / path).read_bytes() for path in PATHS_OF.values())
    assert manifest.graphs["onnx"]["unet"].spec.inputs[0].shape == ("batch", 4, 8, 8)
    assert manifest.graphs["onnx"]["unet"].ops == {"MatMul": 5, "com.microsoft.MultiHeadAttention": 2}
    assert manifest.step_tables == TABLES
    assert manifest.golden[0].prompt == "un café rouge 🍎" and "🍎".encode() in raw


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**53 + 1, 2**64 - 1])
def test_seeds_are_strings(seed: int) -> None:
    adapter = TypeAdapter(Seed)
    assert adapter.dump_json(seed) == f'"{seed}"'.encode()
    assert adapter.validate_json(f'"{seed}"', strict=True) == seed and adapter.validate_python(seed) == seed


@pytest.mark.parametrize("text", ["1", '"1.0"', '" 1"', '"+1"', '"²"', f'"{2**64}"', f'"{-(2**63) - 1}"', "null"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Seed).validate_json(text, strict=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("manifest.json", b'"version":2', b'"version":2,"version":2', "twice"),
        ("manifest.json", b'"seed":"9223372036854775808"', b'"seed":"9223372036854775807"', "the picture is not the"),
        ("manifest.json", b'"steps":4', b'"steps":4.5', "integer"),
        ("manifest.json", b'"passed":true', b'"passed":false', "the summary of the proof is not what proof.json says"),
        ("manifest.json", b'"margin_db":27', b'"margin_db":28', "the summary of the proof is not what proof.json says"),
        ("manifest.json", b'"kind":"full"', b'"kind":"quick","x":"', "manifest.json"),
        ("manifest.json", b'"path":"golden/0/sample.bin"', b'"path":"golden/9/sample.bin"', "not in the file table"),
        ("manifest.json", b'"path":"golden/0/sample.bin"', b'"path":"golden/1/sample.bin"', "role is proof, not"),
        ("manifest.json", b'"shape":[1,3,16,16]', b'"shape":[1,3,16,17]', "3264 bytes"),
        ("manifest.json", b'"pipeline":"pipeline/onnx.json"', b'"pipeline":"pipeline/tflite.json"', "not in the file"),
        ("manifest.json", b'"pipeline":"pipeline/onnx.json"', b'"pipeline":"proof.json"', "of the role proof, not"),
        ("pipeline/onnx.json", b'"scaling_factor":0.18215', b'"scaling_factor":NaN', "not JSON"),
        ("pipeline/onnx.json", b'"scaling_factor":0.18215', b'"scaling_factor":1e999', "finite"),
        ("pipeline/onnx.json", b'"name":"unet"', b'"name":"vae_decoder"', "calls itself"),
        ("pipeline/onnx.json", b'"path":"onnx/unet/model.onnx"', b'"path":"onnx/unet/model.ort"', "its own file"),
        ("pipeline/onnx.json", b'"merges":"tokenizer/merges.txt"', b'"merges":"tokenizer/x.txt"', "not in the file"),
        ("pipeline/onnx.json", b'"merges":"tokenizer/merges.txt"', b'"merges":"golden/latents.bin"', "role is proof"),
        ("pipeline/onnx.json", b'"file":"steps/tables.bin"', b'"file":"steps/table2.bin"', "not in the file table"),
        ("pipeline/onnx.json", b'"width":16', b'"width":24', "picture is 24x16, which does not fit the latents"),
        ("pipeline/onnx.json", b'"unet":{', b'"unet2":{', "proof.json has no record of the onnx graph unet2"),
        ("proof.json", b'"path":"golden/1/sample.bin"', b'"path":"golden/2/sample.bin"', "not in the file table"),
        ("proof.json", b'"shape":[5,4,8,8]', b'"shape":[5,4,8,9]', "5760 bytes"),
        ("proof.json", b'"image":"golden/0.png"', b'"image":"golden/9.png"', "not in the file table"),
        ("proof.json", b'"prompt":"un ', b'"prompt":"deux ', "the picture is not the first of proof.json"),
        ("pipeline/onnx.json", b'"most_steps":4', b'"most_steps":"4"', "is not a valid pipeline file"),
    ],
)
def test_contradictions_are_refused(bundle: Path, file: str, old: bytes, new: bytes, said: str) -> None:
    raw = (bundle / file).read_bytes()
    assert old in raw
    changed = raw.replace(old, new)
    (bundle / file).write_bytes(changed)
    if file == "manifest.json":
        (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(changed).hexdigest()}  manifest.json\n")
    else:
        reseal(bundle)
    with pytest.raises(ProofError, match=said) as caught:
        open_unproven(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bundle_id", "runtime_id"])
def test_a_wrong_id_is_refused(bundle: Path, name: str) -> None:
    reseal(bundle, lambda fields: fields.update({name: "0" * 64}))
    with pytest.raises(ProofError, match=f"{name} is not the digest"):
        open_unproven(bundle)


def test_a_wrong_digest_of_the_proof_is_refused(bundle: Path) -> None:
    reseal(bundle, lambda fields: fields["proof"].update(sha256="0" * 64))
    with pytest.raises(ProofError, match=r"proof.sha256 is not the digest of proof.json"):
        open_unproven(bundle)


def test_formats_that_differ_in_what_they_share_are_refused(tmp_path: Path) -> None:
    draft = write_sample(tmp_path)
    seal(tmp_path, draft.model_copy(update={"graphs": {"onnx": draft.graphs["onnx"], "tflite": draft.graphs["onnx"]}}))
    assert set(open_unproven(tmp_path).manifest.graphs) == {"onnx", "tflite"}
    forge(tmp_path, "pipeline/tflite.json", lambda fields: fields["vae"].update(scaling_factor=0.13025))
    with pytest.raises(ProofError, match=r"pipeline/onnx.json and pipeline/tflite.json differ in vae"):
        open_unproven(tmp_path)
    seal(tmp_path, draft)
    assert not (tmp_path / "pipeline/tflite.json").exists()
    open_unproven(tmp_path)


def test_records_do_not_change(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="frozen"):
        manifest.latents.width = 16
    with pytest.raises(ValueError, match="Extra inputs"):
        UnsealedManifest.model_validate({**manifest.model_dump(), "files": {}})
