"""The prompts of the conformance vectors of every tokenizer. export/conformance writes their ids as transformers
computes them, and `verify` compares a bundle's vectors with this list."""

from collections.abc import Iterator, Mapping, Sequence

MOST_ADDED = 16  # prompts for added tokens: the first half is for the first tokens, the second for the last

# By the name of the vector: the explanation of a difference, which is stored in bundles, and the prompts.
PROMPTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "plain": (
        "the padding (with the bundle's pad_id, not with 0), the beginning or the end token, or the byte-pair merges",
        ("", "a", "a photo of a cat", "an astronaut riding a horse on mars, detailed", "supercalifragilistic"),
    ),
    "lower case": (
        "lower case is characters.json's, for each character alone: no final sigma, no Turkish i, U+0130 becomes two",
        ("HELLO World", "ΣΊΣΥΦΟΣ Σίσυφος ΟΔΟΣ", "İSTANBUL Iı İ", "ΑΣ Σ ΑΣ.", "GROSSE STRASSE ẞ", "ǅ Ǆ ᾼ Ⴀ Ꭰ Å K Ω"),
    ),
    "contractions": (
        "'s 't 're 've 'm 'll 'd are words of their own wherever they stand, also inside and before words",
        (
            "it's don't I've YOU'RE he'll she'd I'm",
            "'sun 'test 'real 'very 'moon 'llama 'dog",
            "'tis rock 'n' roll x'S",
            "’s",
        ),
    ),
    "digits and signs": (
        "each digit is a word of its own, letters and other signs are words in runs; letters and digits are those of "
        "characters.json",
        (
            "3.14 1234567890 4k 16:9 mp3",
            "½ ² Ⅷ ٠١٢ １２３ ௰ 𝟙𝟚 ㊿ x²!! ½½ ①②",
            "wow!! really?? (masterpiece:1.2), [a] {b} <c> d_e-f—g",
            "\"quotes\" 'single' “curly” #tag @me $5 50% a+b=c ^_^ ~`|\\/",
        ),
    ),
    "white space": (
        "white space is Unicode's White_Space, as in characters.json: with U+0085, without U+FEFF, U+200B and U+001C",
        (
            " ",
            "  two  spaces \t tab\nnew\r\nline\fform\vfeed ",
            "a\u00a0b\u1680c\u2003d\u2028e\u202ff\u205fg\u3000h",
            "a\u0085b c\u0085\u0085d",
            "a\ufeffb a\u200bb a\u180eb",
            "a\u001cb\u001dc\u001ed\u001fe\u0000f\u007fg",
        ),
    ),
    "composition": (
        "the prompt is brought to Unicode's form C by the tables of characters.json, also Hangul syllables with a "
        "final jamo, and marks are sorted by their classes",
        (
            "café cafe\u0301 Ångström A\u030angstro\u0308m \u212b",
            "q\u0307\u0323 a\u0323\u0307 a\u0307\u0323 z\u0351\u036b\u0343a\u0334\u0320l",
            "고양이 \u1100\u1169\u110b\u1163\u11bc\u110b\u1175 가\u11a8 \uac00\u11a7 각\u11a8",
            "か\u3099 が ｶﾞ \u0958 \u0928\u093c \u2126 \u2adc \U0001d15e \u0344",
            "Tiếng Việt Tie\u0302\u0301ng Vie\u0323\u0302t",
        ),
    ),
    "scripts": (
        'letters and digits are those of characters.json; bytes of UTF-8 and their letters; "</w>" at a word\'s end',
        (
            "一只可爱的猫 中文mixed英文words123数字 「括弧」、。",
            "猫と犬 カタカナ ｶﾀｶﾅ ひらがな",
            "Кошка ЁЖИК قطة على חתול बिल्ली और แมว",
            "γάτα კატა ድመት தமிழ் తెలుగు ಕನ್ನಡ",
            "𠀀𠮷 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 ᚠᚢᚦ 𓀀𓁐 𐍈 ﬁne ﬂow ſ",
            "ẟ Ꟃ 𞤀 𖹀 𑄃 ꭰ",
        ),
    ),
    "emoji": (
        "code points are taken as they are: joined emoji, variation selectors and skin tones are no units",
        ("😀 🍎 red apple", "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵", "❤️ ❤ 1️⃣ #️⃣ ☃", "pizza🍕and🍔burger 🫠🪿🫎", "¯\\_(ツ)_/¯"),
    ),
    "no characters": (
        "private, unassigned and odd code points are signs, neither letters nor white space",
        (
            "private\ue000use \U000f0000",
            "\u0378 a\u0378b \ufffd \ufffe \U0010ffff",
            "soft\u00adhyphen \u202e \u200d \ufe0f",
        ),
    ),
    "marks": (
        "the texts of bos, eos and pad that are typed in a prompt become their ids, before lower case; in capitals "
        "they are words",
        (
            "<|startoftext|>a cat<|endoftext|>",
            "a<|endoftext|>b <|ENDOFTEXT|> <|StartOfText|>x <|EndOfText|>!!",
            "<|endoftext| endoftext|> <| endoftext |> </w> a</w>b [PAD] <pad>",
            "cat<|endoftext|>'s <|endoftext|>\n<|endoftext|>!",
        ),
    ),
    "exclamation marks": (
        'with Stable Diffusion 2, which pads with "!", every "!" is an added token of id 0; elsewhere it is a word',
        ("!", "a cat!", "! !! a!b !", "wow!!! 10!", "¡! ！"),
    ),
    "long prompts": (
        "of a long prompt the first max_length - 2 ids stay, and the end token; the rest is cut, and shown to the user",
        (
            "cat " * 74,
            "cat " * 75,
            "cat " * 76,
            "cat " * 200,
            "cat " * 74 + "🪿 dog",
            "  " + "cat \t " * 80 + "END",
            "x" * 500,
            "e\u0301a\u030a " * 50,
            "<|endoftext|> " * 80,
            "a long prompt, " * 20 + "with its most important word at the end: pineapple",
        ),
    ),
}


def added_prompts(texts: Sequence[str]) -> Iterator[str]:
    """Yield a prompt with each of these `texts` of added tokens, which are in order of their ids; at most MOST_ADDED
    prompts."""
    for text in texts if len(texts) <= MOST_ADDED else [*texts[: MOST_ADDED // 2], *texts[-MOST_ADDED // 2 :]]:
        yield f"a {text} on grass, {text}{text} x{text} {text}x {text.upper()} {text}1 \u3000{text}\u00a0."
