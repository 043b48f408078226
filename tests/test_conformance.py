"""Conformance vectors: the runtime meets them all; each mistake that a new reader makes fails one that names it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.command import call
from support.forgery import forge
from support.onnx_faults import rows_of, with_column
from support.reader_mistakes import MISTAKES, _padded_with_0
from support.sample_bundle import write_sample
from support.table_tokenizer import Characters, read_characters, read_tokenizer
from support.table_tokenizer import encode as encode_by_tables

from pocketdiffusion.export.bundle_writer import write_tokenizers
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.folder import FolderPipeline
from pocketdiffusion.export.conformance import write_conformance
from pocketdiffusion.export.families import scheduler_config
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven
from pocketdiffusion.runtime.bundle.picture_records import Scheduler, Vae
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.stored_tables import write_tables
from pocketdiffusion.runtime.tokenizer import Tokens
from pocketdiffusion.runtime.verify.conformance import Reader, judge_conformance, judge_vector, own_reader
from pocketdiffusion.runtime.verify.questions import fixed_questions
from pocketdiffusion.runtime.verify.vector_check import vector_faults
from pocketdiffusion.runtime.verify.vectors import ARRAYS, VECTORS, Vector, read_vectors

MODEL = Path(__file__).parents[1] / "pocketdiffusion/models/emoji"


@dataclass(frozen=True)
class Written:
    bundle: Bundle
    reader: Reader
    vectors: dict[str, Vector]
    raw: bytes

    def passes(self, name: str, reader: Reader | None = None) -> bool:
        return judge_vector(self.vectors[name], self.raw, reader or self.reader).passed


def checkpoint_of(tokenizer: Path, **scheduler: Any) -> Checkpoint:
    """The built-in model's settings, with another tokenizer or scheduler."""

    def read(path: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((MODEL / path).read_text(encoding="utf-8"))
        return content

    return Checkpoint(
        name="emoji",
        revision=None,
        model_index=read("model_index.json"),
        configs={"vae": read("vae/config.json")},
        tensors={},
        scheduler={**read("scheduler/scheduler_config.json"), **scheduler},
        tokenizers={"tokenizer": tokenizer},
        licence="",
        licence_files={},
        weight_files={},
        open_pipeline=FolderPipeline(MODEL, None),
    )


def write_bundle(folder: Path, checkpoint: Checkpoint) -> Written:
    """A bundle of odd graphs, with the checkpoint's tokenizer, scheduler, scale and conformance vectors."""
    draft = write_sample(folder)
    shutil.rmtree(folder / "tokenizer")
    config = scheduler_config(checkpoint)
    draft = draft.model_copy(
        update={
            "tokenizers": write_tokenizers(folder, checkpoint),
            "vae": Vae(scaling_factor=checkpoint.configs["vae"]["scaling_factor"], shift_factor=0.0),
            "scheduler": Scheduler(config={**config, "lambda_min_clipped": "-Infinity"}, default_sampler="dpmpp_2m"),
            "step_tables": write_tables(read_schedule(config)),
            "conformance": write_conformance(folder, checkpoint),
        }
    )
    seal(folder, draft)
    return open_written(folder)


def open_written(folder: Path) -> Written:
    bundle = open_unproven(folder)
    vectors, raw = read_vectors(folder)
    return Written(bundle, own_reader(bundle), {vector.name: vector for vector in vectors.vectors}, raw)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_bundle(tmp_path_factory.mktemp("conformance") / "bundle", checkpoint_of(MODEL / "tokenizer"))


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Padded with "!", predicting v, and of a schedule that ends in pure noise."""
    folder = shutil.copytree(MODEL / "tokenizer", tmp_path_factory.mktemp("sd2") / "tokenizer")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "!"}))
    settings = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "final_sigmas_type": "zero",
    }
    return write_bundle(folder.parent / "bundle", checkpoint_of(folder, **settings))


def test_the_runtime_meets_every_vector(written: Written) -> None:
    reports, tells = judge_conformance(written.bundle)
    assert [report.describe() for report in reports if not report.passed] == []
    assert {report.subject for report in reports} == set(tells) == set(written.vectors)
    assert {report.rung for report in reports} == {"conformance"} and len(reports) > 40
    samplers = {name.removeprefix("runs, ") for name in tells if name.startswith("runs, ")}
    assert samplers == {"ddim", "dpmpp_2m", "dpmpp_2m_karras", "euler", "euler_ancestral", "pndm"}
    size = sum((written.bundle.folder / path).stat().st_size for path in (VECTORS, ARRAYS))
    assert size < 400_000


def test_the_runtime_meets_those_of_another_kind_of_model(sd2: Written) -> None:
    reports, _ = judge_conformance(sd2.bundle)
    assert [report.describe() for report in reports if not report.passed] == []


def test_the_same_checkpoint_gives_the_same_bytes(written: Written, tmp_path: Path) -> None:
    for path in write_conformance(tmp_path, checkpoint_of(MODEL / "tokenizer")):
        assert (tmp_path / path).read_bytes() == (written.bundle.folder / path).read_bytes()


def test_they_ask_what_every_bundles_do(written: Written, sd2: Written) -> None:
    assert [*vector_faults(written.bundle)] == [*vector_faults(sd2.bundle)] == []
    asked = {name: vector for name, vector in written.vectors.items() if name in fixed_questions()}
    assert {name: len(vector.cases) for name, vector in asked.items()} == {
        name: len(each.cases) for name, each in fixed_questions().items()
    }
    assert min(vector.floor_db for vector in sd2.vectors.values() if vector.kind == "run") < 105  # by the latents' size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        ({"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}, "runs"),  # one run is not finite
        ({"prediction_type": "sample"}, "vectors"),  # which the original's ancestral sampler refuses
    ],
)
def test_what_the_original_does_not_give_is_not_asked_for(
    settings: dict[str, Any], lacking: str, tmp_path: Path
) -> None:
    found = write_bundle(tmp_path / "bundle", checkpoint_of(MODEL / "tokenizer", **settings))
    assert [*vector_faults(found.bundle)] == []
    assert ("runs, euler_ancestral" in found.vectors) == (lacking == "runs")
    index = found.bundle.manifest.step_tables.index
    assert "euler_ancestral" in index.samplers and index.samplers["euler_ancestral"].rows[2] == 3


def test_a_floor_that_latents_of_4096_allow_is_held_to(sd2: Written, tmp_path: Path) -> None:
    shutil.copytree(sd2.bundle.folder, tmp_path / "b")
    name = next(name for name, vector in sd2.vectors.items() if vector.kind == "run" and vector.floor_db < 105)
    floor = sd2.vectors[name].floor_db

    def change(fields: dict[str, Any]) -> None:
        next(each for each in fields["vectors"] if each["name"] == name)["floor_db"] = floor - 1

    forge(tmp_path / "b", VECTORS, change)
    said = [*vector_faults(open_unproven(tmp_path / "b"))]
    assert said == [f"the floor of {name} is {floor - 1:g}, and must be at least {floor:.1f}"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_a_new_reader_fails_a_vector_that_names_it(mistake: str, written: Written) -> None:
    change, name, told = MISTAKES[mistake]
    assert written.passes(name)
    assert not written.passes(name, replace(written.reader, **change(written.reader)))
    assert told in written.vectors[name].tells


TABLE_MISTAKES: dict[str, tuple[Callable[[Characters], dict[str, Any]], str, str]] = {
    "white space of JavaScript": (
        lambda c: {"spaces": c.spaces - {"\u0085"} | {"\ufeff"}},
        "prompts, white space",
        "with U+0085, without U+FEFF",
    ),
    "white space of Python": (
        lambda c: {"spaces": c.spaces | set("\x1c\x1d\x1e\x1f")},
        "prompts, white space",
        "U+001C",
    ),
    "nothing composed": (lambda c: {"compositions": {}}, "prompts, composition", "form C"),
    "marks not sorted": (lambda c: {"classes": {}}, "prompts, composition", "sorted by their classes"),
    "letters of Latin alone": (
        lambda c: {"letters": frozenset(letter for letter in c.letters if letter < "\u0250")},
        "prompts, scripts",
        "letters and digits are those of characters.json",
    ),
    "decimal digits alone": (
        lambda c: {"digits": frozenset(digit for digit in c.digits if digit.isdecimal())},
        "prompts, digits and signs",
        "each digit is a word",
    ),
    "private use as letters": (
        lambda c: {"letters": c.letters | {"\ue000", "\u0378"}},
        "prompts, no characters",
        "neither letters nor white space",
    ),
}


@pytest.mark.parametrize("mistake", ["none", *TABLE_MISTAKES])
def test_a_wrong_table_of_characters_fails_a_vector_that_names_it(mistake: str, written: Written) -> None:
    settings = written.bundle.manifest.tokenizer
    characters = read_characters(json.loads(CHARACTERS.read_text()))
    change, name, told = TABLE_MISTAKES.get(mistake, (lambda c: {}, "prompts, scripts", ""))
    changed = replace(characters, **change(characters))
    tokenizer = read_tokenizer(written.bundle.folder / "tokenizer", changed, settings.added_tokens, settings.unk_id)

    def encode(prompt: str) -> Tokens:
        kept = [settings.bos_id, *encode_by_tables(tokenizer, prompt)[:75], settings.eos_id]
        ids = np.full((1, 77), settings.pad_id, np.int32)
        ids[0, : len(kept)] = kept
        return replace(written.reader.encode(prompt), ids=ids)

    reader = replace(written.reader, encode=encode)
    if mistake == "none":
        assert all(written.passes(name, reader) for name in written.vectors if name.startswith("prompts"))
    else:
        assert not written.passes(name, reader) and told in written.vectors[name].tells


def test_exclamation_marks_that_pad_are_found(written: Written, sd2: Written) -> None:
    """A reader that has Stable Diffusion 1's tokenizer in it, and takes the bundle's padding."""

    def encode(prompt: str) -> Tokens:
        tokens = written.reader.encode(prompt)
        return _padded_with_0(tokens)

    name = "prompts, exclamation marks"
    assert not sd2.passes(name, replace(sd2.reader, encode=encode))
    assert 'every "!" is an added token of id 0' in sd2.vectors[name].tells
    assert sd2.passes("prompts, plain", replace(sd2.reader, encode=encode))


def broken(written: Written, folder: Path, change: Callable[[Path], dict[str, Any] | None]) -> Written:
    """A copy with a change in it, sealed as if nothing had happened."""
    shutil.copytree(written.bundle.folder, folder)
    update = change(folder) or {}
    seal(folder, written.bundle.manifest.model_copy(update=update))
    return open_written(folder)


def test_two_swapped_merges_are_found(written: Written, tmp_path: Path) -> None:
    def swap(folder: Path) -> None:
        path = folder / "tokenizer/merges.txt"
        lines = path.read_text(encoding="utf-8").split("\n")
        lines[30000:30002] = lines[30001], lines[30000]
        path.write_text("\n".join(lines), encoding="utf-8")

    changed = broken(written, tmp_path / "b", swap)
    assert changed.passes("prompts, plain") and not changed.passes("vocabulary")
    assert "two merges are swapped" in changed.vectors["vocabulary"].tells


@pytest.mark.slow
def test_vectors_that_were_changed_with_the_merges_fail_those_of_the_original(written: Written, tmp_path: Path) -> None:
    """As `verify --against` asks again: the bundle has two merges swapped, and vectors that say so."""
    tokenizer = Path(shutil.copytree(MODEL / "tokenizer", tmp_path / "tokenizer"))
    lines = (tokenizer / "merges.txt").read_text(encoding="utf-8").split("\n")
    lines[30000:30002] = lines[30001], lines[30000]
    (tokenizer / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (tokenizer / "tokenizer.json").unlink(missing_ok=True)
    changed = write_bundle(tmp_path / "bundle", checkpoint_of(tokenizer)).bundle
    own, _ = judge_conformance(changed)
    assert [*vector_faults(changed)] == [report.subject for report in own if not report.passed] == []
    fresh, _ = judge_conformance(changed, recomputed=written.bundle.folder)
    assert [report.subject for report in fresh if not report.passed] == ["vocabulary"]
    assert {report.rung for report in fresh} == {"conformance, asked again"}


def test_a_changed_vocabulary_entry_is_found(written: Written, tmp_path: Path) -> None:
    def swap(folder: Path) -> None:
        path = folder / "tokenizer/vocab.json"
        vocab = json.loads(path.read_text(encoding="utf-8"))
        vocab["zag</w>"], vocab["zu"] = vocab.get("zu"), vocab.get("zag</w>")
        first, second = list(vocab)[40000:40002]
        vocab[first], vocab[second] = vocab[second], vocab[first]
        path.write_text(json.dumps({k: v for k, v in vocab.items() if v is not None}), encoding="utf-8")

    changed = broken(written, tmp_path / "b", swap)
    assert not changed.passes("vocabulary") and "an entry is changed" in changed.vectors["vocabulary"].tells


@pytest.mark.parametrize("column", ["p", "q", "a", "b0"])
def test_one_number_of_a_step_table_is_found(column: str, written: Written, tmp_path: Path) -> None:
    def change(folder: Path) -> dict[str, Any]:
        manifest = written.bundle.manifest

        def enlarge(values: NDArray[Any]) -> None:
            values[rows_of(manifest, "dpmpp_2m", 25)][17] *= 1.0005

        return {"step_tables": with_column(manifest, "dpmpp_2m", column, enlarge).step_tables}

    changed = broken(written, tmp_path / "b", change)
    report = judge_vector(changed.vectors["runs, dpmpp_2m"], changed.raw, changed.reader)
    assert not report.passed and "dpmpp_2m, 25 steps from" in report.describe()
    assert "a number of its table" in changed.vectors["runs, dpmpp_2m"].tells


@pytest.mark.parametrize("factor", ["scaling_factor", "shift_factor"])
def test_a_changed_scale_is_found(factor: str, written: Written, tmp_path: Path) -> None:
    vae = written.bundle.manifest.vae
    changed = broken(
        written, tmp_path / "b", lambda _: {"vae": vae.model_copy(update={factor: getattr(vae, factor) + 0.001})}
    )
    assert not changed.passes("decoder scale") and not changed.passes("posterior, log variances about 0")


def test_what_cannot_be_read_is_said(written: Written, tmp_path: Path) -> None:
    folder = shutil.copytree(written.bundle.folder, tmp_path / "b")
    (folder / VECTORS).write_text('{"made_by": {}, "vectors": [{}]}')
    with pytest.raises(ProofError, match="vectors.0.name"):
        read_vectors(folder)
    (folder / ARRAYS).unlink()
    shutil.copyfile(written.bundle.folder / VECTORS, folder / VECTORS)
    with pytest.raises(ProofError, match="has no conformance vectors"):
        read_vectors(folder)
    with pytest.raises(ProofError, match="is cut off at byte 100"):
        judge_vector(written.vectors["guidance"], written.raw[:100], written.reader)
    unknown = written.vectors["guidance"].model_copy(update={"kind": "upscaling"})
    with pytest.raises(ProofError, match="unknown kind upscaling"):
        judge_vector(unknown, written.raw, written.reader)


@pytest.mark.slow
def test_verify_names_what_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    done = call("verify", bundle)
    assert done.returncode == 0 and "of 4" in done.stdout and "conformance vectors" in done.stdout
    manifest = open_unproven(bundle).manifest
    merges = bundle / manifest.tokenizer.merges
    lines = merges.read_text(encoding="utf-8").split("\n")
    lines[30000:30002] = lines[30001], lines[30000]
    merges.write_text("\n".join(lines), encoding="utf-8")
    seal(bundle, manifest)
    done = call("verify", bundle)
    assert (
        done.returncode == 1 and "vocabulary (conformance)" in done.stderr and "two merges are swapped" in done.stderr
    )
