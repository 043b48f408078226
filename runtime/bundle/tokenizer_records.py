"""Records of the tokenizers, by which a prompt becomes ids."""

from typing import Annotated, Literal

from pydantic import Field

from pocketdiffusion.runtime.record import BundlePath, Count, Record, Size


class AddedToken(Record):
    """A text that is looked for in the prompt as it is, before the prompt is normalized and cut into words.

    Where several begin at one place the longest is taken, and the search goes on behind it. First come those that are
    not `normalized`, in the prompt as it was typed; then, in the stretches between them, the others.
    """

    text: Annotated[str, Field(description="the text; written alone in a prompt it becomes this one id")]
    id: Annotated[Count, Field(description="its token id, which may lie past those of the vocabulary")]
    special: Annotated[
        bool, Field(description="whether it is a mark such as the end of the text; ids do not depend on it")
    ]
    normalized: Annotated[
        bool,
        Field(
            description="whether prompt and text are both normalized (Unicode NFC, one space for each run of white "
            "space, lower case) before they are compared, so that a prompt in capitals matches too"
        ),
    ]
    lstrip: Annotated[bool, Field(description="whether the white space before it is taken away with it")]
    rstrip: Annotated[bool, Field(description="whether the white space behind it is taken away with it")]
    single_word: Annotated[
        bool, Field(description="whether it counts only where no letter, digit or underscore touches it")
    ]
    expansion: Annotated[
        str,
        Field(
            description="not empty for a textual inversion of several vectors: where the prompt's tokens hold this "
            "one, each place where the prompt spells `text` out, in these very letters, is first replaced by this"
        ),
    ] = ""


class Tokenizer(Record):
    """CLIP's byte-level byte-pair encoding. A text encoder with an input `attention_mask` (int32) gets 1 at the
    beginning token, the text and the end token, and 0 at the padding."""

    kind: Annotated[Literal["clip"], Field(description="CLIP's normalization, words and byte-pair encoding")]
    vocab: Annotated[BundlePath, Field(description="JSON: the id of each token of the vocabulary")]
    merges: Annotated[BundlePath, Field(description="text: one pair a line, the first is merged first")]
    characters: Annotated[
        BundlePath,
        Field(description="JSON: what must be known of Unicode: letters, digits, white space, lower case, NFC"),
    ]
    max_length: Annotated[
        Size, Field(description="tokens that the text encoder takes, the beginning and the end token among them")
    ]
    bos_id: Annotated[Count, Field(description="id of the beginning token")]
    eos_id: Annotated[Count, Field(description="id of the end token, which comes behind the text or where it is cut")]
    pad_id: Annotated[Count, Field(description="id that fills the rest behind the end token")]
    unk_id: Annotated[
        Count | None, Field(description="id of a byte that the vocabulary lacks; null: such a byte has no token")
    ] = None
    added_tokens: Annotated[
        tuple[AddedToken, ...],
        Field(description="the texts that are looked for before all else, in order of their ids"),
    ] = ()
