import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.tokenizer import Tokenizer, encode, load_tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden/tokenizer.json").read_text())
BOS, EOS = 49406, 49407


def load(folder: Path, pad_id: int = EOS, max_length: int = 77) -> Tokenizer:
    files = folder / "vocab.json", folder / "merges.txt"
    marks = {BOS: "<|startoftext|>", EOS: "<|endoftext|>", 0: "!"}
    added = [mark(marks[number], number) for number in sorted({BOS, EOS, pad_id} & set(marks))]
    return load_tokenizer(*files, max_length=max_length, bos_id=BOS, eos_id=EOS, pad_id=pad_id, added=added)


def mark(text: str, number: int) -> AddedToken:
    flags = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    return AddedToken.model_validate({"text": text, "id": number, "special": True, **flags})


@pytest.mark.parametrize("kind", ["clip", "sd2"])
def test_equals_transformers_on_the_golden_prompts(kind: str, tokenizer_folder: Path) -> None:
    cases = [case for case in GOLDEN["cases"] if case["kind"] == kind]
    assert len(cases) >= 200
    tokenizer = load(tokenizer_folder, cases[0]["pad_id"])
    for case in cases:
        tokens = encode(tokenizer, case["prompt"])
        padded = case["ids"] + [case["pad_id"]] * (GOLDEN["max_length"] - len(case["ids"]))
        assert tokens.ids.tolist() == [padded], case["prompt"]
        assert tokens.truncated == case["cut"], case["prompt"]


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_equals_transformers_as_installed(pad_token: str, tokenizer_folder: Path) -> None:
    """The golden ids were transformers 5's; this asks the version at hand, over the folder as a checkpoint has it."""
    theirs = AutoTokenizer.from_pretrained(tokenizer_folder, pad_token=pad_token)
    assert theirs.model_max_length == 77
    ours = load(tokenizer_folder, theirs.pad_token_id)
    for prompt in ("a red apple!", "Café, 12 o'clock", "", "  odd \t spaces ", "🍎 and 🍐", "cat " * 100):
        ids = theirs(prompt, padding="max_length", truncation=True).input_ids
        assert encode(ours, prompt).ids.tolist() == [ids], prompt


def test_ids_have_the_text_encoders_type(tokenizer_folder: Path) -> None:
    ids = encode(load(tokenizer_folder, max_length=16), "a cat").ids
    assert ids.dtype == np.int32 and ids.shape == (1, 16)
    assert ids[0].tolist() == [BOS, 320, 2368] + [EOS] * 13


def test_the_mask_is_0_at_the_padding(tokenizer_folder: Path) -> None:
    """At the end token it is 1, though it may have the padding's id."""
    tokenizer = load(tokenizer_folder, max_length=8)
    assert encode(tokenizer, "a cat <|endoftext|>").mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert encode(tokenizer, "cat " * 20).mask.tolist() == [[1] * 8]
    assert encode(tokenizer, "").mask.dtype == np.int32


def test_sd2_pads_with_exclamation_marks(tokenizer_folder: Path) -> None:
    """And so reads one in the prompt as padding, id 0, where CLIP's own has the word 256."""
    assert encode(load(tokenizer_folder), "cat!").ids[0, :4].tolist() == [BOS, 2368, 256, EOS]
    assert encode(load(tokenizer_folder, pad_id=0), "cat!").ids[0, :5].tolist() == [BOS, 2368, 0, EOS, 0]


def test_cut_is_what_did_not_fit_as_it_was_typed(tokenizer_folder: Path) -> None:
    tokenizer = load(tokenizer_folder, max_length=6)
    assert encode(tokenizer, "one two three four").truncated == ""
    assert encode(tokenizer, "One TWO three four  Five,\tSIX").truncated == "Five,\tSIX"
    assert encode(tokenizer, "one two three four \n ").truncated == ""


def test_cut_begins_with_the_character_it_halves(tokenizer_folder: Path) -> None:
    """This emoji is two tokens, of which one fits."""
    tokenizer = load(tokenizer_folder, max_length=4)
    assert encode(load(tokenizer_folder), "🪿").ids[0].tolist().index(EOS) > 2
    assert encode(tokenizer, "cat 🪿 dog").truncated == "🪿 dog"


def test_cut_is_as_it_was_typed_where_tokens_have_several_vectors(tokenizer_folder: Path) -> None:
    """A prompt is drawn with them written out, and cut off it is what the user wrote, whole tokens."""
    names = ["<toy>", "<toy>_1", "<toy>_2"]
    added = [mark(text, 49408 + number) for number, text in enumerate(names)]
    added[0] = added[0].model_copy(update={"expansion": " ".join(names)})
    files = tokenizer_folder / "vocab.json", tokenizer_folder / "merges.txt"

    def cut(prompt: str, max_length: int) -> str:
        tokenizer = load_tokenizer(*files, max_length=max_length, bos_id=BOS, eos_id=EOS, pad_id=EOS, added=added)
        return encode(tokenizer, prompt).truncated

    prompt = "a <toy> on <toy>  GRASS"
    assert [cut(prompt, 2 + room) for room in range(9)] == [
        prompt,
        *["<toy> on <toy>  GRASS"] * 3,
        "on <toy>  GRASS",
        *["<toy>  GRASS"] * 3,
        "GRASS",
    ]
    assert cut(prompt, 2 + 9) == "" and cut("grass <toy>_1 <toy>_2", 4) == "<toy>_2"


def test_refuses_what_is_no_vocabulary(tokenizer_folder: Path, tmp_path: Path) -> None:
    vocab, merges = tokenizer_folder / "vocab.json", tokenizer_folder / "merges.txt"
    broken = tmp_path / "broken"
    broken.write_text('{"a": 1')
    none = tmp_path / "none"
    for first, second in ((none, merges), (vocab, none), (broken, merges), (vocab, broken)):
        with pytest.raises(UserError, match="not a byte-pair vocabulary") as caught:
            load_tokenizer(first, second, max_length=77, bos_id=BOS, eos_id=EOS, pad_id=EOS)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="have the id 60000"):
        load(tokenizer_folder, pad_id=60000)
    with pytest.raises(UserError, match="'<x>' would have id 49408, not 49409"):
        load_tokenizer(vocab, merges, max_length=77, bos_id=BOS, eos_id=EOS, pad_id=EOS, added=[mark("<x>", 49409)])
    with pytest.raises(UserError, match="no entry with the id 60000, which unk_id names"):
        load_tokenizer(vocab, merges, max_length=77, bos_id=BOS, eos_id=EOS, pad_id=EOS, unk_id=60000)
    with pytest.raises(UserError, match="max_length 1"):
        load(tokenizer_folder, max_length=1)
