"""A checkpoint's tokenizer in a bundle gives the ids of the tokenizer that diffusers' pipeline opens."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from safetensors.torch import load_file, save_file
from support.checkpoint_folders import opened
from support.command import refusal as command_refusal
from support.recordings import changed
from support.tokenizer_folders import KINDS, MERGES, REFUSED, SOURCE, configure, entry, saved, whole, write
from transformers import CLIPTokenizer

from pocketdiffusion.export.backends.coreml.apple_layout import write_script
from pocketdiffusion.export.backends.coreml.apple_tokenizer import differences
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.backends.onnx.optimum_layout import write_companions
from pocketdiffusion.export.bundle_writer import write_tokenizers
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, write_vocabulary
from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.quantization import analysis_key
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.export.trace import count_kept
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.bundle.manifest import Tokenizer as Settings
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.tokenizer import Tokenizer, encode, load_tokenizer
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.golden import read_golden, write_golden
from pocketdiffusion.runtime.verify.stages import judge_stages
from pocketdiffusion.runtime.verify.tolerances import check_in_torch

PROMPTS = (
    "a <cat-toy> on grass",
    "<cat-toy>, <cat-toy>! (<cat-toy>) <cat-toy><cat-toy>x x<cat-toy> <dog>.",
    "<CAT-TOY> <Cat-Toy> <DOG> CAT Dog MY CAT",
    "  <cat-toy>  \t<dog>\n <cat-toy>_1 <cat-toy>_2 <dog>_1 <cat-toy>_3 ",
    "cat cats cat-toy concatenate, a cat's dog; dogs my cat My Dog my  cat été ÉTÉ e\u0301te\u0301 <cat toy> sks",
    "<pad> <end> <|endoftext|> <|ENDOFTEXT|> !!! lower newest <unk>",
    "many words and " * 120 + "<cat-toy>",
    "",
)
MARKS = {1: "<|startoftext|>", 2: "<|endoftext|>", 0: "!", 3: "<it's>"}
FLAGLESS = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}


def runtime_tokenizer(folder: Path, settings: Settings) -> Tokenizer:
    """From the manifest's own JSON, as an app reads it."""
    read = Settings.model_validate_json(settings.model_dump_json())
    return load_tokenizer(
        folder / read.vocab,
        folder / read.merges,
        max_length=read.max_length,
        bos_id=read.bos_id,
        eos_id=read.eos_id,
        pad_id=read.pad_id,
        unk_id=read.unk_id,
        added=read.added_tokens,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path / "source")
    checkpoint = replace(opened(tiny_checkpoint), tokenizers={"tokenizer": source})
    out = tmp_path / "bundle"
    (out / "onnx").mkdir(parents=True)
    ours = runtime_tokenizer(out, write_tokenizers(out, checkpoint)[0])
    for graph in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        (out / "onnx" / graph).mkdir()
    write_companions(out / "onnx", checkpoint, 16, 16)
    theirs = CLIPTokenizer.from_pretrained(source, local_files_only=True)
    companion = CLIPTokenizer.from_pretrained(out / "onnx/tokenizer", local_files_only=True)
    for prompt in PROMPTS:
        written = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, theirs)
        options = {"padding": "max_length", "max_length": theirs.model_max_length, "truncation": True}
        wanted = theirs(written, **options)
        tokens = encode(ours, prompt)
        assert tokens.ids.tolist() == [wanted.input_ids] and tokens.mask.tolist() == [wanted.attention_mask], prompt
        assert companion.model_max_length == theirs.model_max_length
        assert companion(written, **options).input_ids == wanted.input_ids, prompt


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, words = REFUSED[kind]
    folder = make(tmp_path / "source")
    with pytest.raises(UserError) as caught:
        read_tokenizer(folder, "CLIPTokenizer")
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "AutoTokenizer"])
def test_other_classes_are_judged_by_their_ids(kind: str, tmp_path: Path) -> None:
    """These take all of tokenizer.json: with CLIP's words it is served, with others the first prompt is named."""
    folder = saved(tmp_path / "source", "<cat-toy>")
    configure(folder, tokenizer_class="PreTrainedTokenizerFast")
    assert read_tokenizer(folder, kind).added[-1].text == "<cat-toy>"
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for part, other, words in (
        ("normalizer", {"type": "Lowercase"}, "of the prompt '"),
        ("normalizer", None, "it has no normalizer"),
        (
            "model",
            {**content["model"], "end_of_word_suffix": ""},
            "is not a CLIP tokenizer: it is a BPE that ends words",
        ),
        ("post_processor", None, "of the prompt ''"),
    ):
        file.write_text(json.dumps({**content, part: other}))
        with pytest.raises(UserError, match=words):
            read_tokenizer(folder, kind)


def test_a_vocabulary_that_is_sound_is_copied_byte_for_byte(tmp_path: Path) -> None:
    write_vocabulary(read_tokenizer(SOURCE, "CLIPTokenizer"), tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (SOURCE / name).read_bytes()


@pytest.mark.parametrize("ending", [b"\r\n", b""], ids=["CRLF", "no last line feed"])
def test_merges_that_readers_would_misread_are_written_anew(ending: bytes, tmp_path: Path) -> None:
    source = tmp_path / "tokenizer"
    shutil.copytree(SOURCE, source)
    sound = (SOURCE / "merges.txt").read_bytes()
    (source / "merges.txt").write_bytes(sound.replace(b"\n", ending) if ending else sound.rstrip(b"\n"))
    (tmp_path / "out").mkdir()
    write_vocabulary(read_tokenizer(source, "CLIPTokenizer"), tmp_path / "out")
    written = (tmp_path / "out/merges.txt").read_bytes()
    assert written.split(b"\n")[1:] == sound.split(b"\n")[1:] and b"\r" not in written


def test_a_vocabulary_is_taken_out_of_tokenizer_json(tmp_path: Path) -> None:
    """And that file counts where vocab.json beside it says something else, as for transformers."""
    source = write(saved(tmp_path / "source"), {"vocab.json": {"a": 0}, "merges.txt": "#version: 0.2\n"})
    (tmp_path / "out").mkdir()
    write_vocabulary(read_tokenizer(source, "CLIPTokenizer"), tmp_path / "out")
    real = list(json.loads((SOURCE / "vocab.json").read_text()))
    assert list(json.loads((tmp_path / "out/vocab.json").read_text()))[:-2] == real[: 512 + MERGES]
    merges = [file.read_text().splitlines()[1:] for file in (tmp_path / "out/merges.txt", SOURCE / "merges.txt")]
    assert merges[0] == merges[1][:MERGES]


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def set_text_encoder(folder: Path, rows: int = 49408, **settings: object) -> None:
    """Changes the text encoder's configuration, and gives its embedding `rows` rows."""
    config, weights = folder / "text_encoder/config.json", folder / "text_encoder/model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": rows} | settings))
    tensors = load_file(weights)
    (name,) = (name for name in tensors if "token_embedding" in name)
    more = torch.randn(rows - 49408, tensors[name].shape[1], generator=torch.Generator().manual_seed(0))
    save_file({**tensors, name: torch.cat([tensors[name], more])}, weights, {"format": "pt"})


def test_the_command_line_refuses_before_any_work(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "tokenizer")  # its tokenizer.json is what transformers would read
    REFUSED["a mark in the vocabulary"][0](folder / "tokenizer")
    said = command_refusal("export", folder, "--target", "pixel-8", "-o", tmp_path / "out")
    assert "vocab.json begins with a byte order mark" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "tokens", "words"),
    [
        ({"model_max_length": 100}, (), ("tokenizer_config.json", "model_max_length 100", "max_position_embeddings")),
        ({}, ("<cat-toy>",), ("'<cat-toy>' has id 49408", "49408 rows", "resize_token_embeddings")),
        ({"model_input_names": ["input_ids"]}, (), ("tokenizer_config.json", "attention_mask", "use_attention_mask")),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    settings: dict[str, object], tokens: tuple[str, ...], words: tuple[str, ...], folder: Path
) -> None:
    shutil.rmtree(folder / "tokenizer")
    decoder = {str(49408 + n): entry(token) for n, token in enumerate(tokens)}
    whole(folder / "tokenizer", **settings, added_tokens_decoder=decoder)
    set_text_encoder(folder, use_attention_mask=True)
    with pytest.raises(UserError) as caught:
        components(opened(folder))
    assert all(word in str(caught.value) for word in words), caught.value


def test_positions_that_no_prompt_reaches_are_left_out(folder: Path) -> None:
    """A converter would cut them off by itself, and the weight would not be found again in its file."""
    shutil.rmtree(folder / "tokenizer")
    whole(folder / "tokenizer", model_max_length=64)
    (text, *_) = components(opened(folder))
    stored = load_file(folder / "text_encoder/model.safetensors")
    (name,) = (name for name in stored if "position_embedding" in name)
    assert stored[name].shape == (77, 32)
    ref = text.weights["text_model.embeddings.position_embedding.weight"]
    np.testing.assert_array_equal(ref.read(), stored[name][:64].numpy())
    assert load_module(text).state_dict().keys() == text.weights.keys()


def test_another_kind_of_tokenizer_is_refused(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"tokenizer": ["transformers", "T5Tokenizer"]}))
    with pytest.raises(UserError, match="T5Tokenizer, which is not supported; CLIPTokenizer is"):
        components(opened(folder))


def test_states_are_those_of_diffusers_pipeline(folder: Path, tmp_path: Path) -> None:
    """Added tokens of two vectors, padding that special_tokens_map.json alone names, 64 tokens, and a mask: all in one
    model, whose text encoder is run from its ONNX file."""
    shutil.rmtree(folder / "tokenizer")
    whole(folder / "tokenizer", model_max_length=64)
    added = {"<cat-toy>": 49408, "<cat-toy>_1": 49409}
    write(folder / "tokenizer", {"added_tokens.json": added, "special_tokens_map.json": {"pad_token": "!"}})
    set_text_encoder(folder, rows=49410, use_attention_mask=True)
    checkpoint = opened(folder)
    parts = components(checkpoint)
    text = parts[0]
    assert [(tensor.name, tensor.shape) for tensor in text.spec.inputs] == [
        ("input_ids", (1, 64)),
        ("attention_mask", (1, 64)),
    ]
    assert count_kept(text, ["fused_attention"]) == {"fused_attention": {"takes an attention mask": 2}}
    artifact = Artifact(format="onnx", compute_unit="cpu", recipe="fp32", profile="ort", rewrites=("fused_attention",))
    graph = emit_floats(text, artifact, tmp_path, open_batch=False)
    runner = open_runner(tmp_path / graph.path, graph.spec)
    ours = runtime_tokenizer(tmp_path, write_tokenizers(tmp_path, checkpoint)[0])
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    for prompt in PROMPTS:
        with torch.no_grad():
            wanted, negative = (
                states.numpy() for states in pipeline.encode_prompt(prompt, "cpu", 1, True, negative_prompt=prompt)
            )
        tokens = encode(ours, prompt)
        states = runner({"input_ids": tokens.ids, "attention_mask": tokens.mask})["last_hidden_state"]
        assert np.array_equal(wanted, negative) and states.shape == (1, 64, 32)
        assert np.abs(states - wanted).max() < 1e-5, prompt
        unmasked = runner({"input_ids": tokens.ids, "attention_mask": np.ones((1, 64), np.int32)})
        assert (np.abs(unmasked["last_hidden_state"] - wanted).max() > 1e-3) == (prompt != PROMPTS[6]), prompt


def test_a_search_begins_afresh_after_a_change_of_the_tokenizer_or_the_scheduler(folder: Path) -> None:
    def found() -> str:
        checkpoint = opened(folder)
        return analysis_key(checkpoint, components(checkpoint), [])

    seen = [found()]
    write(folder / "tokenizer", {"special_tokens_map.json": {"pad_token": "!"}})
    seen.append(found())
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "DDIMScheduler"]}))
    seen.append(found())
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler | {"beta_end": 0.02}))
    seen.append(found())
    assert len(set(seen)) == 4 and found() == seen[-1]


def test_the_mask_is_recorded_kept_and_judged(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    """From diffusers' pipeline into golden vectors, which blame a graph that lost it and a runtime that errs."""
    set_text_encoder(folder, use_attention_mask=True)
    checkpoint = opened(folder)
    parts = components(checkpoint)
    (drawn,) = record(checkpoint, parts, [Request("red apple", "a grey dog", steps=1)])
    masks = [case.inputs["attention_mask"] for case in drawn.calls["text_encoder"]]  # the negative half first
    assert masks[0].dtype == np.int32 and [int(mask.sum()) for mask in masks] == [5, 4]

    bundle = open_bundle(tiny_bundle)
    recorded = write_golden(tmp_path, 0, drawn)
    held = {"golden": (recorded,), "program": drawn.program}
    (kept,) = read_golden(Bundle(tmp_path, bundle.manifest.model_copy(update=held)))
    for one, other in zip(kept.calls["text_encoder"], drawn.calls["text_encoder"], strict=True):
        assert np.array_equal(one.inputs["attention_mask"], other.inputs["attention_mask"])
    lost = changed(kept, "text_encoder", "attention_mask", lambda case, mask: np.ones_like(mask))
    runner = open_rewritten(parts[0], ["fused_attention", "quick_gelu"])
    for trajectory, passed in ((kept, True), (lost, False)):
        report = judge_graph(check_in_torch(Kind.REWRITES, None), runner, [trajectory])[0]
        assert report.subject == "text_encoder.last_hidden_state" and report.passed == passed
        (stage,) = (stage for stage in judge_stages(bundle, [trajectory]) if stage.subject == "tokenizer")
        assert stage.passed == passed


def test_apples_pipeline_is_said_to_differ_where_it_does() -> None:
    tokens = TensorSpec("input_ids", (1, 77), "int32")
    plain_spec, masked = (
        GraphSpec("text_encoder", inputs, ())
        for inputs in ((tokens,), (tokens, replace(tokens, name="attention_mask")))
    )
    marks = [AddedToken.model_validate({"text": text, "id": n, **FLAGLESS}) for n, text in MARKS.items()]
    files: dict[str, Any] = {"vocab": "v", "merges": "m", "characters": "c"}
    settings = Settings(
        kind="clip", **files, max_length=77, bos_id=1, eos_id=2, pad_id=2, added_tokens=tuple(marks[:2])
    )
    assert differences(settings, plain_spec) == ()
    other = settings.model_copy(update={"pad_id": 0, "added_tokens": tuple(marks)})
    assert [clause.split(",")[0] for clause in differences(other, masked)] == [
        "gives the text encoder no attention_mask",
        "pads with the end token",
        'does not know the added tokens "<it\'s>"',
    ]


def test_the_script_for_apple_says_so(tmp_path: Path) -> None:
    write_script(tmp_path, 0.18215, "ane", ("does not know '<it's>'",))
    done = subprocess.run(["sh", tmp_path / "compile_for_apple.sh"], capture_output=True, text=True)
    assert done.stderr.startswith("Apple's pipeline will not draw what this model draws: it does not know '<it's>'.\n")
    write_script(tmp_path, 0.18215, "ane")
    assert "Apple's pipeline" not in (tmp_path / "compile_for_apple.sh").read_text()


def test_the_script_for_apple_says_which_prompts_are_split_otherwise(tmp_path: Path) -> None:
    """Of every model, in one line, when the packages are compiled."""
    for path in ("tokenizer/vocab.json", "tokenizer/merges.txt", "bin/xcrun"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("#!/bin/sh\n")
    (tmp_path / "bin/xcrun").chmod(0o755)
    (tmp_path / "coreml").mkdir()
    write_script(tmp_path / "coreml", 0.18215, "ane")
    command = ["sh", str(tmp_path / "coreml/compile_for_apple.sh"), str(tmp_path / "out")]
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = "Prompts with punctuation or numbers get other token ids there than here"
    assert done.stdout.startswith(f"{said}: Apple's tokenizer splits at spaces alone.") and not done.stderr
    assert len(done.stdout.splitlines()) == 1
