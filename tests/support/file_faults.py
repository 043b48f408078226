"""Changes of a bundle's files that a test then wants to see named: each changes a folder, and seals it again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.recording import first_middle_last_steps
from pocketdiffusion.runtime.verify.stages import judge_stages
from support.forgery import Change, fit_ids, forge, reseal

Fault = Callable[[Path], None]
MERGES = "onnx/tokenizer/merges.txt"


def pipeline(change: Change) -> Fault:
    return lambda folder: forge(folder, "pipeline/onnx.json", change)


def content(path: str, change: Callable[[bytes], bytes]) -> Fault:
    def fault(folder: Path) -> None:
        raw = (folder / path).read_bytes()
        changed = change(raw)
        assert changed != raw
        (folder / path).write_bytes(changed)
        reseal(folder)

    return fault


def swapped_entries(raw: bytes) -> bytes:
    """The ids of two words of the first prompt in each other's place."""
    vocabulary = json.loads(raw)
    vocabulary["red</w>"], vocabulary["apple</w>"] = vocabulary["apple</w>"], vocabulary["red</w>"]
    return json.dumps(vocabulary).encode()


def reversed_merges(raw: bytes) -> bytes:
    header, *pairs = raw.decode().splitlines()
    return "\n".join([header, *reversed(pairs), ""]).encode()


def stage_of(fields: dict[str, Any], name: str) -> dict[str, Any]:
    stage: dict[str, Any] = next(stage for stage in fields["program"]["stages"] if stage["stage"] == name)
    return stage


def exchanged_inputs(fields: dict[str, Any]) -> None:
    inputs = stage_of(fields, "denoise")["calls"][0]["inputs"]
    inputs["sample"], inputs["timestep"] = inputs["timestep"], inputs["sample"]


def unscaled_decoder(fields: dict[str, Any]) -> None:
    stage_of(fields, "decode")["calls"][0]["inputs"]["latent_sample"] = "latents"


def another(path: str) -> Callable[[Path], None]:
    """The next of the recorded arrays or pictures in its place."""

    def fault(folder: Path) -> None:
        shutil.copyfile(folder / path.replace("0", "1", 1), folder / path)
        reseal(folder)

    return fault


def other_number(raw: bytes) -> bytes:
    values = np.frombuffer(raw, "<f4").copy()
    values[len(values) // 3] *= 1.001
    return values.tobytes()


def tokenizer(**fields: object) -> Fault:
    return pipeline(lambda f: f["tokenizers"][0].update(fields))


def steps(change: Change) -> Fault:
    return pipeline(lambda f: change(f["steps"]))


def sampler(name: str, change: Change) -> Fault:
    return steps(lambda s: change(s["samplers"][name]))


def call(stage: str, **fields: object) -> Fault:
    return pipeline(lambda f: stage_of(f, stage)["calls"][0].update(fields))


def variant(stage: str, *when: str) -> Fault:
    return pipeline(lambda f: stage_of(f, stage).update(when=when))


def unet(change: Change) -> Fault:
    return pipeline(lambda f: change(f["graphs"]["unet"]))


def vectors(change: Callable[[list[dict[str, Any]]], object]) -> Fault:
    return lambda folder: forge(folder, "conformance/vectors.json", lambda f: change(f["vectors"]))


def first_case(part: str, change: Change, kind: str = "tokens") -> Fault:
    return vectors(lambda vs: change(next(v for v in vs if v["kind"] == kind)["cases"][0][part]))


def manifest(change: Change) -> Fault:
    return lambda folder: reseal(folder, change)


def without(kind: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(found: list[dict[str, Any]]) -> None:
        found[:] = [vector for vector in found if vector["kind"] != kind]

    return change


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(vector for vector in found if vector["kind"] == kind)


def lower(name: str) -> Fault:
    return vectors(lambda vs: next(v for v in vs if v["name"] == name).update(floor_db=100.0))


def whole_run_of_2(found: list[dict[str, Any]]) -> None:
    """The case of a start in its place, of which the first run is one of 1 step."""
    arrays = of_kind(found, "whole_run")["cases"][0]["arrays"]
    arrays["steps"] = {**of_kind(found, "run")["cases"][0]["arrays"]["steps"], "shape": [1]}


def outputs_are_noise(found: list[dict[str, Any]]) -> None:
    arrays = of_kind(found, "run")["cases"][0]["arrays"]
    arrays["outputs"] = {**arrays["noise"], "shape": [51, 16]}


def swapped_halves(found: list[dict[str, Any]]) -> None:
    arrays = of_kind(found, "guidance")["cases"][0]["arrays"]
    arrays["negative"], arrays["positive"] = arrays["positive"], arrays["negative"]


def one_more(found: list[dict[str, Any]]) -> None:
    found[0]["cases"].append({**found[0]["cases"][0], "texts": {}})


def fewer_runs(folder: Path) -> None:
    """The last run from a picture of the first sampler left out."""

    def change(fields: dict[str, Any]) -> None:
        case = of_kind(fields["vectors"], "run")["cases"][1]
        for array in (*(case["arrays"][name] for name in ("steps", "starts")), *case["expected"].values()):
            array["shape"][0] -= 1

    forge(folder, "conformance/vectors.json", change)


def windows(folder: Path) -> None:
    content(MERGES, lambda raw: raw.replace(b"\n", b"\r\n"))(folder)


def worse_for_a_picture(fields: dict[str, Any]) -> None:
    """Twice the prompt's states, where a picture is redrawn."""
    stages = fields["program"]["stages"]
    call = json.loads(json.dumps(stage_of(fields, "denoise")["calls"][0]))
    call["inputs"]["encoder_hidden_states"] = {"sum": [call["inputs"]["encoder_hidden_states"]] * 2}
    stages.insert(0, {"stage": "denoise", "when": ["picture"], "required": True, "calls": [call]})


def worse_at_the_end(fields: dict[str, Any]) -> None:
    worse_for_a_picture(fields)
    stages = fields["program"]["stages"]
    stages.append({**stages.pop(0), "when": []})


def another_size(f: dict[str, Any], **latents: int) -> None:
    f["latents"].update(latents)
    f["picture"] = {side: f["latents"][side] * f["latents"]["scale"] for side in ("width", "height")}


def twice(value: str, stage: str, tensor: str) -> Fault:
    """A host value added to itself."""
    return pipeline(lambda f: stage_of(f, stage)["calls"][0]["inputs"].update({tensor: {"sum": [value, value]}}))


def saved_as(format: str, mode: str) -> Fault:
    """The picture of the original as a file of another kind."""

    def fault(folder: Path) -> None:
        with Image.open(folder / "golden/0.png") as picture:
            picture.convert(mode).save(folder / "golden/0.png", format)
        reseal(folder)

    return fault


def labelled(path: str, role: str) -> Fault:
    def change(fields: dict[str, Any]) -> None:
        fields["files"][path]["role"] = role
        fit_ids(fields)

    return manifest(change)


def unlisted_weights(folder: Path) -> None:
    """Of another role, and named by nothing but the graph's own file."""
    unet(lambda g: (g["files"].remove("onnx/unet/model.onnx_data"), g["external_data"].clear()))(folder)

    def change(fields: dict[str, Any]) -> None:
        fields["files"]["onnx/unet/model.onnx_data"]["role"] = "companion"
        fit_ids(fields)

    reseal(folder, change)


def number_of(column: str, sampler: str, steps: int, start: int, restart: int) -> Fault:
    """One number of a step table that a run from `start` alone reads, 1% larger."""

    def fault(folder: Path) -> None:
        stored = json.loads((folder / "pipeline/onnx.json").read_bytes())["steps"]["samplers"][sampler]
        place = sum(stored["rows"][: steps - 1]) + start + restart
        raw = bytearray((folder / "steps/tables.bin").read_bytes())
        values = np.frombuffer(raw, "<f4")
        values[stored["restarts"][restart]["columns"][column] // 4 + place] *= np.float32(1.01)
        (folder / "steps/tables.bin").write_bytes(raw)
        reseal(folder)

    return fault


def blamed(bundle: Bundle) -> set[str]:
    """The subjects of all failed verdicts on stages and graphs, by one recorded drawing."""
    trajectories = [first_middle_last_steps(read_golden(bundle)[0])]
    found = judge_stages(bundle, read_golden(bundle)[:1])
    for name in bundle.manifest.graphs["onnx"]:
        found += judge_graph(
            Check(Kind.ARTIFACT, Tolerance(105.0), Scope("onnx", recipe="fp32")),
            open_graph(bundle, name, "onnx"),
            trajectories,
        )
    return {verdict.subject for verdict in found if not verdict.passed}


# Contradictions between the tiles of vae, the latents and the decoder: (name, fault, part of the sentence).
TILE_FAULTS: list[tuple[str, Fault, str]] = [
    ("tiles", pipeline(lambda f: f["vae"].update(tile_size=8)), "tile_size and tile_overlap are both"),
    ("tiles that overlap", pipeline(lambda f: f["vae"].update(tile_overlap=8)), "tile_size and tile_overlap are both"),
    (
        "tiles of a decoder for pictures",
        pipeline(lambda f: f["vae"].update(tile_size=16, tile_overlap=4)),
        "decode: vae_decoder.latent_sample is .1, 4, 16, 16., and decoder_latents is .4, 8, 8.",
    ),
    (
        "tiles as large as the picture",
        pipeline(lambda f: f["vae"].update(tile_size=32, tile_overlap=8)),
        "vae.tile_size is 32, and the larger side",
    ),
    (
        "tiles of half a latent",
        pipeline(lambda f: f["vae"].update(tile_size=15, tile_overlap=8)),
        "vae.tile_size is 15, which is not a multiple",
    ),
]
