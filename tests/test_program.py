"""The program of a bundle: what is evaluated, which variant is taken, what runs once and what for each half, and every
refusal by name."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import call as command
from support.program_specs import LATENTS, SD, SDXL, spec
from support.recordings import PROGRAM

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.pipeline import draw, generate
from pocketdiffusion.runtime.program import Concat, Constant, Program, Sum, halved_graphs, pick_variant
from pocketdiffusion.runtime.program_check import check_program
from pocketdiffusion.runtime.program_run import Values, accepts_both_halves, evaluate, run_stage
from pocketdiffusion.runtime.record import ArrayRef
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.stages import judge_stages

PROMPT, IMAGE, DENOISE, DECODE = range(4)  # the places of the stages in PROGRAM
Fields = dict[str, Any]


def fields() -> Fields:
    """Stable Diffusion's program, to be changed."""
    found: Fields = PROGRAM.model_dump(mode="json")
    return found


def unet_inputs(program: Fields) -> Fields:
    found: Fields = program["stages"][DENOISE]["calls"][0]["inputs"]
    return found


def sdxl() -> Fields:
    """That of SDXL: two text encoders, of which the UNet gets the states of both."""
    program = fields() | {"absent_negative": "zeros"}
    first, second = {"graph": "text_encoder"}, {"graph": "text_encoder_2"}
    program["stages"][PROMPT]["calls"] = [
        first | {"inputs": {"input_ids": "tokens/1"}, "outputs": {"last_hidden_state": "states/1"}},
        second
        | {
            "inputs": {"input_ids": "tokens/2"},
            "outputs": {"last_hidden_state": "states/2", "text_embeds": "pooled"},
        },
    ]
    states = {"concat": ["states/1", "states/2"], "axis": 2}
    unet_inputs(program).update(encoder_hidden_states=states, text_embeds="pooled", time_ids="time_ids")
    return program


def read(program: Fields) -> Program:
    return Program.model_validate_json(json.dumps(program), strict=True)


def constant(ref: ArrayRef) -> Array:
    raise AssertionError("there is none")


def test_programs_of_two_families_are_taken() -> None:
    check_program(read(fields()), SD)
    check_program(read(sdxl()), SDXL)
    assert halved_graphs(read(sdxl())) == {"unet"}
    assert accepts_both_halves(read(sdxl()), read(sdxl()).stages[DENOISE], SDXL)
    assert not accepts_both_halves(PROGRAM, PROGRAM.stages[DENOISE], SD)


def test_inputs_are_evaluated() -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.ones((1, 2, 3), np.float32)
    values = {"a": a, "b": b}
    ref = ArrayRef(path="constants/c.bin", dtype="float32", shape=(1,))
    assert evaluate("a", values, constant) is a
    assert np.array_equal(evaluate(Concat(concat=("a", "b"), axis=2), values, constant), np.concatenate([a, b], 2))
    assert np.array_equal(evaluate(Concat(concat=("b", "a"), axis=1), values, constant), np.concatenate([b, a], 1))
    assert np.array_equal(evaluate(Sum(sum=("a", "b", "b")), values, constant), a + b + b)
    assert evaluate(Constant(constant=ref), values, lambda given: np.array([given == ref])).all()


def test_a_sum_is_of_float32_from_left_to_right() -> None:
    large, small = np.array([2.0**24], np.float32), np.array([1.0], np.float32)
    values = {"large": large, "small": small}
    assert evaluate(Sum(sum=("large", "small", "small")), values, constant) == 2**24
    assert evaluate(Sum(sum=("small", "small", "large")), values, constant) == 2**24 + 2


def test_the_first_variant_whose_values_are_there_is_taken() -> None:
    program = fields()
    controlled = program["stages"][DENOISE] | {"when": ["control_picture", "control_scale"]}
    program["stages"].insert(DENOISE, controlled)
    found = read(program)
    assert pick_variant(found, "denoise", set()) == found.stages[DENOISE + 1]
    assert pick_variant(found, "denoise", {"control_picture"}) == found.stages[DENOISE + 1]
    assert pick_variant(found, "denoise", {"control_picture", "control_scale"}) == found.stages[DENOISE]
    assert pick_variant(found, "preview", {"control_picture"}) is None
    check_program(found, SD)


def with_residual() -> tuple[Program, dict[str, GraphSpec]]:
    """One more graph in denoise, that looks at the latents alone; its result is added to them."""
    program = fields()
    stage = program["stages"][DENOISE]
    extra = {"graph": "extra", "inputs": {"sample": "latents"}, "outputs": {"residual": "residual"}}
    unet_inputs(program)["sample"] = {"sum": ["scaled_latents", "residual"]}
    stage["calls"].insert(0, extra)
    shapes = {name: ("batch", *shape[1:]) for name, shape in (("sample", LATENTS), ("states", (1, 77, 6)))}
    unet = spec(
        "unet",
        {"sample": shapes["sample"], "timestep": (1,), "encoder_hidden_states": shapes["states"]},
        {"out_sample": shapes["sample"]},
    )
    return read(program), SD | {"unet": unet, "extra": spec("extra", {"sample": LATENTS}, {"residual": LATENTS})}


@pytest.mark.parametrize("batched", [False, True])
def test_what_no_half_changes_runs_once(batched: bool) -> None:
    program, specs = with_residual()
    check_program(program, specs)
    assert halved_graphs(program) == {"unet"}
    calls: list[tuple[str, dict[str, tuple[int, ...]]]] = []

    def run(graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        calls.append((graph, {name: array.shape for name, array in inputs.items()}))
        if graph == "extra":
            return {"residual": inputs["sample"] + 1}
        return {"out_sample": inputs["sample"] * inputs["encoder_hidden_states"][:, :1, :1, None]}

    latents = np.full(LATENTS, 3, np.float32)
    shared: dict[str, Array] = {
        "latents": latents,
        "scaled_latents": latents / 2,
        "timestep": np.array([7.0], np.float32),
    }
    halves = {
        half: {"text_states": np.full((1, 77, 6), n, np.float32)} for half, n in (("negative", 2), ("positive", 5))
    }
    found = run_stage(program.stages[DENOISE], specs, Values(shared, halves), run, constant, batched=batched)
    for half, factor in (("negative", 2), ("positive", 5)):
        assert np.array_equal(found.of(half)["model_output"], np.full(LATENTS, 5.5 * factor, np.float32))
    assert [graph for graph, _ in calls] == ["extra", "unet", *([] if batched else ["unet"])]
    size = 2 if batched else 1
    assert calls[1][1] == {
        "sample": (size, 4, 8, 8),
        "timestep": (1,),
        "encoder_hidden_states": (size, 77, 6),
    }


def unknown_stage(program: Fields) -> None:
    program["stages"].append({"stage": "upscale", "calls": []})


def without(place: int) -> Callable[[Fields], None]:
    return lambda program: program["stages"].pop(place)


def at(place: int, side: str, **changes: Any) -> Callable[[Fields], None]:
    """Other inputs or outputs of the only call of a stage."""
    return lambda program: program["stages"][place]["calls"][0][side].update(changes)


def late(program: Fields) -> None:
    """A value that a call makes behind the one that takes it."""
    stage = program["stages"][DENOISE]
    unet_inputs(program)["encoder_hidden_states"] = "later"
    stage["calls"].append(
        {"graph": "text_encoder", "inputs": {"input_ids": "tokens/1"}, "outputs": {"last_hidden_state": "later"}}
    )


def test_a_preview_by_the_decoder_is_a_program_that_can_be_run() -> None:
    """Both stages make `decoded`; neither is before the other."""
    program = fields()
    program["stages"].append(
        {
            "stage": "preview",
            "required": False,
            "calls": [
                {
                    "graph": "vae_decoder",
                    "inputs": {"latent_sample": "decoder_latents"},
                    "outputs": {"sample": "decoded"},
                }
            ],
        }
    )
    check_program(Program.model_validate(program), SD)


REFUSED: dict[str, tuple[Callable[[Fields], Any], str]] = {
    "guidance": (lambda p: p.update(guidance="magic"), "guidance 'magic' is not known"),
    "absent negative": (lambda p: p.update(absent_negative="ones"), "absent_negative 'ones' is not known"),
    "an unknown draw": (lambda p: p.update(draws=["start", "dice", "steps"]), "dice"),
    "draws of steps first": (lambda p: p.update(draws=["steps", "posterior", "start"]), "steps at the end"),
    "an unknown stage": (unknown_stage, "stage 'upscale' is required and not known"),
    "no denoise": (without(DENOISE), "it has no stage denoise"),
    "no decode": (without(DECODE), "it has no stage decode"),
    "an unknown condition": (lambda p: p["stages"][0].update(when=["mood"]), "depends on 'mood'"),
    "an unknown graph": (lambda p: p["stages"][0]["calls"][0].update(graph="t5"), "calls 't5'"),
    "an unknown input": (at(DENOISE, "inputs", hint="latents"), "unet has no input 'hint'"),
    "a missing input": (lambda p: unet_inputs(p).pop("timestep"), "unet is given no timestep"),
    "an unknown output": (at(DENOISE, "outputs", pooled="pooled"), "'pooled', and the graph has the outputs"),
    "an unknown host value": (at(PROMPT, "inputs", input_ids="tokens"), "'tokens', which is not a host value"),
    "tokens from 0": (at(PROMPT, "inputs", input_ids="tokens/0"), "'tokens/0', which is not a host value"),
    "a host value of another stage": (
        at(DENOISE, "inputs", sample="decoder_latents"),
        "exists only in decode and preview",
    ),
    "a value that is made nowhere": (at(DENOISE, "inputs", sample="hope"), "neither a host value nor computed before"),
    "a value of a later call": (late, "neither a host value nor computed before"),
    "a result of another stage": (at(PROMPT, "outputs", last_hidden_state="model_output"), "a result of another stage"),
    "the name of a host value": (at(PROMPT, "outputs", last_hidden_state="latents"), "the name of a host value"),
    "a value made twice": (at(PROMPT, "outputs", pooler_output="text_states"), "a value has one meaning"),
    "no result": (at(DECODE, "outputs", sample="picture_of_it"), "decode must make one of decoded"),
    "two results": (
        lambda p: p["stages"][IMAGE]["calls"][0]["outputs"].clear(),
        "posterior, image_latents, and makes -",
    ),
    "latents go nowhere": (at(DECODE, "inputs", latent_sample={"sum": ["decoder_latents"]}), "to no graph"),
    "two inputs exchanged": (
        at(DENOISE, "inputs", sample="timestep", timestep="scaled_latents"),
        "4 axes, and timestep",
    ),
    "states for latents": (at(DENOISE, "inputs", sample="text_states"), "4 axes, and text_states has 3"),
    "a mask without a number": (at(PROMPT, "inputs", input_ids="attention_mask/x"), "which is not a host value"),
    "a picture's latents without a picture": (
        at(DENOISE, "inputs", sample={"sum": ["latents", "posterior"]}),
        "'posterior', which another stage makes",
    ),
    "the prompt's states in decode": (
        at(DECODE, "inputs", latent_sample="text_states"),
        "'text_states', which another stage makes",
    ),
    "the axis of the batch": (at(DENOISE, "inputs", sample={"concat": ["latents"], "axis": 0}), "along axis 0"),
    "an axis that is not there": (at(DENOISE, "inputs", sample={"concat": ["latents"], "axis": 4}), "along axis 4"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_program_that_cannot_be_run_is_refused_by_name(what: str) -> None:
    change, said = REFUSED[what]
    program = fields()
    change(program)
    with pytest.raises(UserError) as caught:
        check_program(read(program), SD)
    assert said in str(caught.value) and "\n" not in str(caught.value), caught.value


def exchanged(program: Fields) -> None:
    unet_inputs(program)["encoder_hidden_states"] = "states/2"


def summed(program: Fields) -> None:
    unet_inputs(program)["encoder_hidden_states"] = {"sum": ["states/1", "states/2"]}


def along_the_tokens(program: Fields) -> None:
    unet_inputs(program)["encoder_hidden_states"]["axis"] = 1


def with_a_wrong_constant(program: Fields) -> None:
    ref = {"path": "constants/pooled.bin", "dtype": "float32", "shape": [1, 9]}
    unet_inputs(program)["text_embeds"] = {"constant": ref}


def ids_for_floats(program: Fields) -> None:
    program["stages"][PROMPT]["calls"][1]["inputs"]["input_ids"] = {"sum": ["tokens/1", "tokens/2"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (exchanged, "encoder_hidden_states has 16 on axis 2, and is given 10"),
        (summed, "encoder_hidden_states has 16 on axis 2, and is given 6 and 10"),
        (along_the_tokens, "encoder_hidden_states has 77 on axis 1, and is given 77 and 77"),
        (with_a_wrong_constant, "text_embeds has 10 on axis 1, and is given 9"),
        (ids_for_floats, "only float32 is added or joined"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: Callable[[Fields], None], said: str) -> None:
    program = sdxl()
    change(program)
    with pytest.raises(UserError) as caught:
        check_program(read(program), SDXL)
    assert said in str(caught.value)


def test_a_stage_that_is_not_required_may_be_unknown() -> None:
    program = fields()
    program["stages"].append({"stage": "upscale", "required": False, "calls": []})
    check_program(read(program), SD)


# In a bundle: read, run and judged.


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def with_program(bundle: Bundle, change: Callable[[Fields], Any]) -> Bundle:
    program: Fields = bundle.manifest.program.model_dump(mode="json")
    change(program)
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"program": read(program)}))


def test_a_bundle_with_such_a_program_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    """By every command, in one line, with the folder."""
    folder = shutil.copytree(tiny.folder, tmp_path / "bundle")
    seal(folder, with_program(tiny, at(DENOISE, "inputs", sample="hope")).manifest)
    done = command("verify", folder)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"{folder} has a program that cannot be run" in done.stderr and "'hope'" in done.stderr


def test_absent_is_another_negative_prompt_than_empty_where_zeros_stand_for_it(tiny: Bundle) -> None:
    def zeros(program: Fields) -> None:
        program["absent_negative"] = "zeros"

    empty = draw(tiny, "red apple", negative_prompt="", steps=2)
    assert np.array_equal(draw(tiny, "red apple", steps=2), empty)
    other = with_program(tiny, zeros)
    assert np.array_equal(draw(other, "red apple", negative_prompt="", steps=2), empty)
    assert not np.array_equal(draw(other, "red apple", steps=2), empty)


def test_a_variant_for_a_picture_is_taken_where_there_is_one(tiny: Bundle) -> None:
    def varied(program: Fields) -> None:
        """One that is given the latents as they are, where a picture is redrawn."""
        (call,) = program["stages"][DENOISE]["calls"]
        call = call | {"inputs": call["inputs"] | {"sample": "latents"}}
        program["stages"].insert(DENOISE, {"stage": "denoise", "when": ["picture"], "calls": [call]})

    picture, other = np.zeros((32, 32, 3), np.uint8), with_program(tiny, varied)
    check_program(other.manifest.program, {n: g.spec for n, g in next(iter(tiny.manifest.graphs.values())).items()})

    def latents(bundle: Bundle, **options: Any) -> Array:
        *_, last = generate(bundle, "red apple", steps=2, sampler="euler", **options)
        return last.latents

    assert np.array_equal(latents(other), latents(tiny))
    assert not np.array_equal(latents(other, image=picture), latents(tiny, image=picture))


def test_what_a_reader_cannot_give_is_named(tiny: Bundle) -> None:
    def controlled(program: Fields) -> None:
        program["stages"][DENOISE]["when"] = ["control_picture"]

    with pytest.raises(UserError, match="denoise needs control_picture"):
        next(generate(with_program(tiny, controlled), "red apple"))
    with pytest.raises(UserError, match="the stage denoise needs guidance, which this pipeline does not provide"):
        next(generate(with_program(tiny, at(DENOISE, "inputs", timestep="guidance")), "red apple"))
    with pytest.raises(UserError, match="the program needs tokens/2, and the bundle has 1 tokenizers"):
        next(generate(with_program(tiny, at(PROMPT, "inputs", input_ids="tokens/2")), "red apple"))
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="its program has no stage encode_image"):
        next(generate(with_program(tiny, without(IMAGE)), "red apple", image=picture))


def test_without_guidance_of_its_own_a_model_has_one_half(tiny: Bundle) -> None:
    """And the number that is given as the guidance does not count."""
    alone = draw(tiny, "red apple", guidance=1.0, steps=2)
    for kind in ("none", "embedded"):
        other = with_program(tiny, partial(dict.update, guidance=kind))
        assert np.array_equal(draw(other, "red apple", negative_prompt="grey", guidance=9.0, steps=2), alone)


def failed(bundle: Bundle) -> set[str]:
    """The stages that are blamed, of one drawing."""
    return {verdict.subject for verdict in judge_stages(bundle, read_golden(bundle)[:1]) if not verdict.passed}


def test_the_gate_blames_a_program_that_is_not_the_original_s(tiny: Bundle) -> None:
    """Of faults that no shape tells: what was recorded does."""

    def twice(program: Fields) -> None:
        unet_inputs(program)["encoder_hidden_states"] = {"sum": ["text_states", "text_states"]}

    assert failed(tiny) == set()
    assert failed(with_program(tiny, twice)) == {"program"}
