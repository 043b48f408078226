"""One file of each kind and role, changed and sealed as if nothing had happened: who tells, and what nobody tells.

What is in a graph is the matter of test_faults.py."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.file_faults import (
    MERGES,
    TILE_FAULTS,
    Fault,
    another,
    another_size,
    blamed,
    call,
    content,
    exchanged_inputs,
    fewer_runs,
    first_case,
    labelled,
    lower,
    manifest,
    of_kind,
    one_more,
    other_number,
    outputs_are_noise,
    pipeline,
    reversed_merges,
    sampler,
    saved_as,
    stage_of,
    steps,
    swapped_entries,
    swapped_halves,
    tokenizer,
    twice,
    unet,
    unlisted_weights,
    unscaled_decoder,
    variant,
    vectors,
    whole_run_of_2,
    windows,
    without,
    worse_at_the_end,
    worse_for_a_picture,
)
from support.forgery import forge

from pocketdiffusion.quantize.stated_floors import check_floors
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.verify.conformance import judge_conformance
from pocketdiffusion.runtime.verify.contradictions import check_contradictions
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.stages import judge_stages


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


CASE = "golden/case/unet"
TOLD: list[tuple[str, Fault, set[str]]] = [
    ("the VAE's scale", pipeline(lambda f: f["vae"].update(scaling_factor=0.13025)), {"vae_scale"}),
    ("the id of the beginning", pipeline(lambda f: f["tokenizers"][0].update(bos_id=49407)), {"tokenizer"}),
    ("the id of the padding", pipeline(lambda f: f["tokenizers"][0].update(pad_id=0)), {"tokenizer"}),
    ("a number of a step table", content("steps/tables.bin", other_number), {"step_tables"}),
    ("the merges", content("onnx/tokenizer/merges.txt", reversed_merges), {"tokenizer"}),
    ("the vocabulary", content("onnx/tokenizer/vocab.json", swapped_entries), {"tokenizer"}),
    ("weights", content("onnx/unet/model.onnx_data", lambda raw: bytes(len(raw))), {"unet.out_sample"}),
    ("the picture of the original", another("golden/0.png"), {"golden_cases"}),
    ("a golden case", content(f"{CASE}/outputs/out_sample.bin", lambda raw: raw[::-1]), {"golden_cases"}),
    ("recorded noise", another("golden/0/noise.bin"), {"noise", "sampler"}),
    (
        "a recorded picture",
        another("golden/0/vae_decoder.out.sample.bin"),
        {"image", "vae_decoder.sample", "golden_cases"},
    ),
]


@pytest.mark.parametrize(("fault", "expected"), [pytest.param(f, who, id=what) for what, f, who in TOLD])
def test_a_changed_file_is_told(folder: Path, fault: Fault, expected: set[str]) -> None:
    before = open_bundle(folder).manifest
    fault(folder)
    bundle = open_bundle(folder)
    assert bundle.manifest.bundle_id != before.bundle_id
    assert blamed(bundle) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["golden"][0].update(prompt="green apple"),
        lambda fields: fields["graphs"]["onnx"].pop("unet"),
        lambda fields: fields["verdicts"].clear(),
    ],
)
def test_another_proof_contradicts_the_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    forge(folder, "proof.json", change)
    with pytest.raises(ProofError, match="contradicts itself"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (exchanged_inputs, "denoise: unet.sample has 4 axes, and timestep has 1"),
        (unscaled_decoder, "decode: vae_decoder.latent_sample is given 'latents'"),
    ],
)
def test_a_program_with_one_value_for_another_does_not_open(
    folder: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    pipeline(change)(folder)
    with pytest.raises(UserError, match=said):
        open_bundle(folder)


NAMED: list[tuple[str, Fault, str]] = [
    ("channels", pipeline(lambda f: another_size(f, channels=3)), "latent_parameters is .* posterior is .6, 16, 16"),
    ("height", pipeline(lambda f: another_size(f, height=8)), "vae_encoder.sample is .* picture is .3, 16, 32"),
    ("the scale", pipeline(lambda f: another_size(f, scale=4)), "vae_encoder.sample is .* picture is .3, 64, 64"),
    ("max_length", tokenizer(max_length=76), "text_encoder.input_ids is .1, 77., and tokens/1 is .76"),
    ("the posterior", call("encode_image", outputs={"latent_parameters": "image_latents"}), "image_latents is .4"),
    (
        "the scale of the input",
        pipeline(lambda f: stage_of(f, "denoise")["calls"][0]["inputs"].update(sample="latents")),
        "an input of denoise is latents",
    ),
    ("the order of draws", pipeline(lambda f: f["program"].update(draws=["start", "posterior", "steps"])), "draws is"),
    ("no stage for a picture", pipeline(lambda f: f["program"]["stages"].pop(1)), "no stage calls vae_encoder"),
    ("a stage that never runs", variant("encode_image", "mask"), "no stage that can be run calls vae_encoder"),
    ("a masked picture", call("encode_image", inputs={"sample": "masked_picture"}), "encode_image uses masked_pi"),
    ("denoise with a mask", variant("denoise", "mask"), "denoise needs mask"),
    ("decode with a control picture", variant("decode", "control_picture"), "decode needs control_picture"),
    (
        "latents, twice",
        twice("scaled_latents", "denoise", "sample"),
        "unet.sample is a sum or concat of scaled_latents",
    ),
    ("a timestep, twice", twice("timestep", "denoise", "timestep"), "unet.timestep is a sum or concat of timestep"),
    (
        "a picture, twice",
        twice("picture", "encode_image", "sample"),
        "no graph of encode_image has the unchanged picture",
    ),
    (
        "weights that are no graph's",
        unlisted_weights,
        "graphs.unet.files does not list onnx/unet/model.onnx_data",
    ),
    (
        "a golden case of another shape",
        manifest(lambda m: m["golden"]["unet"]["inputs"]["sample"].update(shape=[4, 1, 16, 16])),
        "golden.unet.inputs.sample is float32.4, 1, 16, 16., and its spec has float32.'batch', 4",
    ),
    (
        "a golden case of another dtype",
        manifest(lambda m: m["golden"]["unet"]["inputs"]["sample"].update(dtype="int32")),
        "golden.unet.inputs.sample is int32",
    ),
    ("no engine", unet(lambda g: g.update(engine=None, external_data=[])), "unet.external_data does not list"),
    ("no engine at all", unet(lambda g: g.update(engine=None)), "unet.engine is null, and onnx is read by onnxruntime"),
    ("another engine", unet(lambda g: g["engine"].update(name="coreml")), "unet.engine is coreml, and onnx is read by"),
    (
        "a version that is to come",
        unet(lambda g: g["engine"].update(least_version="99.0")),
        "unet.engine.least_version is 99.0, and .* ran the file",
    ),
    ("code of a processor", unet(lambda g: g.update(compiled_for=["SM8650"])), "unet.compiled_for must be null"),
    ("parts", unet(lambda g: g.update(parts=["x.onnx"])), "unet.parts is reserved"),
    *TILE_FAULTS,
    (
        "steps without a table",
        pipeline(lambda f: f["defaults"].update(steps=1000)),
        "with the settings of defaults fails",
    ),
    ("no step left", pipeline(lambda f: f["defaults"].update(strength=0.001)), "of defaults fails: strength 0.001"),
    ("guidance below 0", pipeline(lambda f: f["defaults"].update(guidance=-30.0)), "defaults.guidance is -30, outside"),
    ("guidance past all", pipeline(lambda f: f["defaults"].update(guidance=1e300)), "defaults.guidance is 1e.300"),
    ("a preview's row less", pipeline(lambda f: f["preview"]["matrix"].pop()), "preview.matrix has 3 rows"),
    ("all passed over", manifest(lambda m: m["passed_over"]["files"].append("*")), "passed_over.files has ."),
    ("less passed over", manifest(lambda m: m["passed_over"]["folders"].remove(".git")), "folders does not list .git"),
    ("a picture of grey", saved_as("PNG", "L"), "golden/0.png: it is not an RGB picture of 8 bits and 32x32 pixels"),
    ("a picture of another kind", saved_as("BMP", "RGB"), "golden/0.png: it is not a PNG"),
    ("a last line that is open", content(MERGES, lambda raw: raw[:-1]), "last line does not end in a line feed"),
    (
        "a word twice",
        content("onnx/tokenizer/vocab.json", lambda raw: raw.rstrip()[:-1] + b',"red</w>":0}'),
        "the key 'red</w>' is there twice",
    ),
    ("a recorded array that is a report", labelled("golden/0/noise.bin", "report"), "noise.bin, whose role is report"),
    (
        "an array past all numbers",
        first_case("expected", lambda e: e["ids"].update(shape=[2**40, 2**40])),
        "is cut off",
    ),
    (
        "the index's prediction",
        steps(lambda s: s.update(prediction_type="v_prediction")),
        "steps.prediction_type is v_",
    ),
    (
        "the model's prediction",
        manifest(lambda m: m["model"].update(prediction_type="sample")),
        "model.prediction_type is sample",
    ),
    ("fewer steps", steps(lambda s: s.update(most_steps=10)), "rows of ddim has 50 entries for 10"),
    ("the default sampler", steps(lambda s: s.update(default_sampler="ddim")), "default_sampler is ddim, and .* pndm"),
    ("an unknown default sampler", steps(lambda s: s.update(default_sampler="x")), "no table of the default sampler x"),
    ("a sampler less", steps(lambda s: s["samplers"].pop("ddim")), "samplers.ddim has 0 rows for 1 steps"),
    ("a sampler that is not known", steps(lambda s: s["samplers"].update(x=s["samplers"]["ddim"])), "called 'x'"),
    ("a count less", sampler("ddim", lambda t: t["rows"].__setitem__(9, 0)), "ddim has 0 rows for 10 steps"),
    ("rows exchanged", sampler("ddim", lambda t: t["rows"].insert(8, t["rows"].pop(9))), "ddim has 10 rows for 9"),
    (
        "a scale of noise less",
        sampler("ddim", lambda t: t["init_noise_sigma"].pop()),
        "init_noise_sigma of ddim has 49",
    ),
    (
        "a column less",
        sampler("ddim", lambda t: t["columns"].pop("a")),
        "columns and constants of ddim do not have each",
    ),
    ("a column twice", sampler("ddim", lambda t: t["constants"].update(a=1.0)), "columns and constants of ddim"),
    (
        "a column within a number",
        sampler("ddim", lambda t: t["columns"].update(a=5102)),
        "column a of ddim does not begin",
    ),
    ("an odd restart", sampler("pndm", lambda t: t["restarts"][0]["constants"].update(x=1.0)), "a restart of pndm"),
    (
        "many restarts",
        sampler("pndm", lambda t: t["restarts"].append(t["restarts"][0])),
        "pndm has restarts for 6 rows",
    ),
    ("transposes of no tensor", unet(lambda g: g["transposes"].update(x=[0, 1])), "unet has no tensor x"),
    (
        "transposes of other axes",
        unet(lambda g: g["transposes"].update(sample=[0, 1, 1, 7])),
        "of the axes .0, 1, 1, 7",
    ),
    ("transposes", unet(lambda g: g["transposes"].update(sample=[0, 2, 3, 1])), "transposes names sample"),
    (
        "no external data",
        unet(lambda g: g["external_data"].clear()),
        "external_data does not list onnx/unet/model.onnx_data",
    ),
    (
        "external data of another",
        unet(lambda g: g["external_data"][0].update(location="x")),
        "external_data has .* for x",
    ),
    (
        "a file less",
        unet(lambda g: (g["files"].pop(), g["external_data"].clear())),
        "files does not list onnx/unet/model.onnx_d",
    ),
    ("no golden case", manifest(lambda m: m["golden"].pop("unet")), "golden has no case of unet"),
    (
        "a golden case less a tensor",
        manifest(lambda m: m["golden"]["unet"]["outputs"].clear()),
        "unet.outputs does not have",
    ),
    (
        "a golden case of no graph",
        manifest(lambda m: m["golden"].update(x=m["golden"]["unet"])),
        "x, which is not a graph",
    ),
    ("a picture that is none", content("golden/0.png", lambda raw: raw[:200]), "0.png cannot be read as a picture"),
    ("no vectors", manifest(lambda m: m["conformance"].clear()), "conformance in manifest.json does not list"),
    ("a vector less", vectors(lambda vs: vs.pop(6)), "there is no vector 'prompts, scripts'"),
    ("no vocabulary", vectors(without("vocabulary")), "there is no vector 'vocabulary'"),
    ("no guidance", vectors(without("guidance")), "there is no vector 'guidance'"),
    (
        "no runs",
        vectors(lambda vs: of_kind(vs, "run")["cases"].clear()),
        "runs, ddim has no run of 1 steps from 0, from noise",
    ),
    ("a prompt less", vectors(lambda vs: vs[2]["cases"].pop(1)), "prompts, contractions has no case .*'sun 'test"),
    (
        "a seed less",
        vectors(lambda vs: of_kind(vs, "noise")["cases"].pop()),
        "noise of 16 .* has no case seed -9223",
    ),
    ("a guidance less", vectors(lambda vs: of_kind(vs, "guidance")["cases"].pop(0)), "has no case guidance 7.5"),
    ("a run less", fewer_runs, "runs, ddim has no run of 50 steps from 49, from a picture"),
    (
        "no run from a picture",
        vectors(lambda vs: of_kind(vs, "run")["cases"].pop()),
        "ddim has no run of 1 steps .* from a picture",
    ),
    (
        "no start from noise",
        vectors(lambda vs: of_kind(vs, "start")["cases"].pop(0)),
        "start, ddim has no run of 1 .* from noise",
    ),
    ("fewer rows of a run", vectors(whole_run_of_2), "run row by row, ddim has no run of 9 steps"),
    ("outputs that are one another's", vectors(outputs_are_noise), "runs, ddim, case .*, has other outputs than"),
    ("inputs that are one another's", vectors(swapped_halves), "guidance has no case guidance 7.5"),
    ("another kind", vectors(lambda vs: of_kind(vs, "guidance").update(kind="noise")), "is of the kind noise, not"),
    (
        "a lower floor",
        vectors(lambda vs: vs[0].update(floor_db=199.0)),
        "the floor of prompts, plain is 199, and must be at least 200",
    ),
    ("a lower floor of runs", lower("runs, dpmpp_2m"), "dpmpp_2m is 100, and must be at least 105.0"),
    ("a lower floor of a start", lower("start, pndm"), "the floor of start, pndm is 100, and must be at least 120"),
    ("a floor of the recipe", unet(lambda g: g.update(floor_db=60.0)), "unet.floor_db is 60.0, but the recipe fp32"),
    (
        "floors of pictures",
        unet(lambda g: g.update(picture_floors_db=[20.0, 9.0])),
        "unet.picture_floors_db is .20.0, 9.0., but the recipe fp32 has the gate's own",
    ),
    ("a variant for a picture", pipeline(worse_for_a_picture), "the variant of denoise for picture is not covered"),
    ("a variant that comes later", pipeline(worse_at_the_end), "the variant of denoise for all else is not covered"),
    ("lines that end as on Windows", windows, "merges.txt: a line of it is 'i n.r', which is not two pieces"),
    ("an empty line", content(MERGES, lambda raw: raw.replace(b"\n", b"\n\n", 2)), "merges.txt: a line of it is ''"),
    ("a vector twice", vectors(lambda vs: vs.append(vs[0])), "there are two vectors prompts, plain"),
    (
        "a case without ids",
        first_case("expected", lambda e: e.pop("ids")),
        "prompts, plain, case .*, cannot be run .*'ids'",
    ),
    ("a case without a prompt", first_case("texts", lambda t: t.clear()), "prompts, plain has no case ''"),
    ("another tokenizer", first_case("numbers", lambda n: n.update(tokenizer=0)), "prompts, plain has no case ''"),
    ("another seed", first_case("texts", lambda t: t.update(seed="x"), "noise"), "noise of 16 .* has no case seed 0"),
    (
        "too few outputs",
        first_case("arrays", lambda a: a["outputs"].update(shape=[2, 16]), "run"),
        "ddim, case .*, has other outputs",
    ),
    ("a case more, without a prompt", vectors(one_more), "prompts, plain, case .*, cannot be run .*'prompt'"),
]


def some(rows: Sequence[tuple[str, Fault, str]]) -> Iterator[Any]:
    """Every fourth row, and the others for CI."""
    for number, (what, fault, said) in enumerate(rows):
        yield pytest.param(fault, said, id=what, marks=[pytest.mark.slow] if number % 4 else [])


@pytest.mark.parametrize(("fault", "said"), some(NAMED))
def test_what_no_recorded_drawing_shows_is_named(folder: Path, fault: Fault, said: str) -> None:
    """As `verify` goes: it opens, its files do not contradict each other, it passes."""
    fault(folder)
    with pytest.raises((ProofError, UserError), match=said) as refused:
        bundle = open_bundle(folder)
        check_contradictions(bundle)
        check_floors(bundle)
        judge_conformance(bundle)
        judge_stages(bundle, read_golden(bundle)[:1])
    assert "\n" not in str(refused.value)


def test_what_export_writes_contradicts_nothing(tiny_bundle: Path) -> None:
    check_contradictions(open_bundle(tiny_bundle))
    check_floors(open_bundle(tiny_bundle))


UNTOLD: list[tuple[str, Fault, str]] = [
    ("defaults", pipeline(lambda f: f["defaults"].update(steps=3)), "runtime bundle"),
    ("the preview", pipeline(lambda f: f["preview"].update(bias=[0.0, 0.0, 0.0])), "runtime bundle"),
    ("the README", content("README.md", lambda raw: raw + b"x"), "runtime bundle"),
    ("the byte that a vocabulary lacks", tokenizer(unk_id=None), "runtime bundle"),
    (
        "tokens marked as special",
        pipeline(lambda f: f["tokenizers"][0]["added_tokens"][0].update(special=False)),
        "runtime bundle",
    ),
    ("what is known of units", unet(lambda g: g["units"]["npu"].update(status="good")), "runtime bundle"),
    ("bytes behind the vectors", content("conformance/arrays.bin", lambda raw: raw + bytes(4)), "runtime bundle"),
    ("a licence", content("licences/CLIP.txt", lambda raw: raw + b"x"), "runtime bundle"),
    ("optimum's index", content("onnx/model_index.json", lambda raw: raw + b" "), "bundle"),
    ("the report", content("report/report.html", lambda raw: raw + b" "), ""),
]


@pytest.mark.parametrize(("fault", "ids"), [pytest.param(f, ids, id=what) for what, f, ids in UNTOLD])
def test_what_nobody_tells(folder: Path, fault: Fault, ids: str) -> None:
    """What no picture depends on, once it is sealed again: the ids alone say that it is another bundle."""
    before = open_bundle(folder).manifest
    fault(folder)
    bundle = open_bundle(folder)
    check_contradictions(bundle)
    after = bundle.manifest
    assert (after.runtime_id != before.runtime_id, after.bundle_id != before.bundle_id) == (
        "runtime" in ids,
        "bundle" in ids,
    )
    assert {v.subject for v in judge_stages(bundle, read_golden(bundle)[:1]) if not v.passed} == set()
