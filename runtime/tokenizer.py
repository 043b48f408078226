"""CLIP's tokenizer (Radford et al. 2021): byte-level byte-pair encoding over vocab.json and merges.txt.

Added tokens are matched first: the marks of the beginning and the end, the padding token, and the tokens of textual
inversions. A prompt that spells out "<|endoftext|>" gets its id, and if a checkpoint pads with "!" (Stable
Diffusion 2), each "!" in a prompt is id 0, not the id of the word "!". `manifest.AddedToken` has the rules.

The remaining text is composed (Unicode NFC), runs of white space become one space, letters are lowered. It is
then split into words (runs of letters, single digits, runs of other signs, English endings such as 's), each word into
UTF-8 bytes, and the bytes are joined by the merges in their order of rank.

The ids are equal to the ids of transformers 5's CLIPTokenizer (also called CLIPTokenizerFast) and of transformers 4's
CLIPTokenizerFast. transformers 4's slow CLIPTokenizer differs: it separates Chinese characters, drops control
characters and lowers a final Greek sigma as such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, models, normalizers, pre_tokenizers

from pocketdiffusion.runtime.bundle.manifest import AddedToken
from pocketdiffusion.runtime.errors import UserError

WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Tokenizer:
    """`encoder` computes the ids of a text of any length; the other fields state how they fill the encoder's input.

    `expansions` has, by the token's text, the expansion of each added token that has one.
    """

    encoder: tokenizers.Tokenizer
    max_length: int
    bos_id: int
    eos_id: int
    pad_id: int
    expansions: Mapping[str, str]


@dataclass(frozen=True)
class Tokens:
    """`ids` and `mask` are int32 [1, max_length]; the mask is 0 at the padding and 1 elsewhere. `truncated` is the end
    of the prompt that did not fit, as it was typed, or ""."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    truncated: str


def load_tokenizer(
    vocab: Path,
    merges: Path,
    *,
    max_length: int,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    unk_id: int | None = None,
    added: Sequence[AddedToken] = (),
) -> Tokenizer:
    """Load CLIP's tokenizer from its two files. `max_length` includes the beginning and the end token (77 in CLIP).

    Raise UserError if a file cannot be read, or an id is neither in the vocabulary nor of an added token.
    """
    try:
        entries, pairs = models.BPE.read_file(str(vocab), str(merges))
        return make_tokenizer(entries, pairs, max_length, bos_id, eos_id, pad_id, unk_id, added)
    except UserError as error:
        raise UserError(f"{vocab}: {error}") from None
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())
        raise UserError(f"{vocab} and {merges} are not a byte-pair vocabulary ({reason}): fetch them again") from None


def read_merges(raw: bytes) -> list[str]:
    """Return the pairs in the bytes of merges.txt by the rules of docs/BUNDLE.md: one per line, without a first line
    that begins with #version. Only a line feed ends a line; a carriage return is part of the pair."""
    lines = raw.decode().split("\n")
    if lines[0].startswith("#version"):
        del lines[0]
    return lines[:-1] if lines and not lines[-1] else lines


def make_tokenizer(
    vocab: dict[str, int],
    merges: list[tuple[str, str]],
    max_length: int,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    unk_id: int | None,
    added: Sequence[AddedToken],
) -> Tokenizer:
    """Make the tokenizer from the content of its files, as `load_tokenizer`. The library raises plain Exception if a
    merge does not fit."""
    names = {number: entry for entry, number in vocab.items()}
    if unk_id is not None and unk_id not in names:
        raise UserError(
            f"the vocabulary has no entry with the id {unk_id}, which unk_id names: take a complete tokenizer"
        )
    if max_length < 2:
        raise UserError(f"max_length {max_length} has no room for the beginning and the end token: 77 is common")

    unknown = None if unk_id is None else names[unk_id]
    encoder = tokenizers.Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=unknown))
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    encoder.add_tokens([_library_token(token) for token in sorted(added, key=lambda token: token.id)])
    for token in added:
        if (found := encoder.token_to_id(token.text)) != token.id:
            raise UserError(f"the added token {token.text!r} would have id {found}, not {token.id}")
    for number in (bos_id, eos_id, pad_id):
        if encoder.id_to_token(number) is None:
            raise UserError(
                f"neither the vocabulary nor the added tokens have the id {number}, which bos_id, eos_id or "
                "pad_id names: take a complete tokenizer"
            )
    expansions = {token.text: token.expansion for token in added if token.expansion}
    return Tokenizer(encoder, max_length, bos_id, eos_id, pad_id, expansions)


def encode(tokenizer: Tokenizer, prompt: str) -> Tokens:
    """Return the ids of `prompt`: the beginning token, at most max_length - 2 of the text, the end token, then padding.

    If the cut is inside a character of several bytes or an added token of several vectors, `truncated` begins with it.
    """
    written, typed = _expand(tokenizer, prompt)
    encoding = tokenizer.encoder.encode(written, add_special_tokens=False)
    room = tokenizer.max_length - 2
    ids = np.full((1, tokenizer.max_length), tokenizer.pad_id, np.int32)
    kept = [tokenizer.bos_id, *encoding.ids[:room], tokenizer.eos_id]
    ids[0, : len(kept)] = kept
    mask = (np.arange(tokenizer.max_length) < len(kept)).astype(np.int32)[None]
    cut = prompt[typed[encoding.offsets[room][0]] :] if len(encoding.ids) > room else ""
    return Tokens(ids, mask, cut)


def expand(tokenizer: Tokenizer, prompt: str) -> str:
    """Return the prompt with added tokens of several vectors written out, as diffusers' `maybe_convert_prompt` does."""
    return _expand(tokenizer, prompt)[0]


def _expand(tokenizer: Tokenizer, prompt: str) -> tuple[str, Sequence[int]]:
    """Return `expand`'s text, and for each character of it the index in `prompt` of the character that it replaces."""
    typed: Sequence[int] = range(len(prompt))
    if not tokenizer.expansions:
        return prompt, typed
    for token in dict.fromkeys(tokenizer.encoder.encode(prompt, add_special_tokens=False).tokens):
        if token in tokenizer.expansions:
            prompt, typed = _replace(prompt, typed, token, tokenizer.expansions[token])
    return prompt, typed


def _replace(text: str, typed: Sequence[int], old: str, new: str) -> tuple[str, list[int]]:
    """Return `text.replace(old, new)` and the indices of its characters; those of `new` are the index where `old`
    began."""
    places: list[int] = []
    begun = 0
    while (found := text.find(old, begun)) >= 0:
        places += [*typed[begun:found], *[typed[found]] * len(new)]
        begun = found + len(old)
    return text.replace(old, new), [*places, *typed[begun:]]


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.text,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )
