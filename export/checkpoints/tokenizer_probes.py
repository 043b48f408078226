"""The prompts on which a checkpoint's tokenizer and the runtime's are compared before anything is exported."""

from collections.abc import Iterator, Sequence

from pocketdiffusion.runtime.bundle.manifest import AddedToken

_TEXTS = (
    "",
    " ",
    "a photo of a cat",
    "HELLO World, hElLo",
    "it's don't I've YOU'RE he'll she'd 'tis rock 'n' roll dogs' x'S",
    "3.14 1234567890 4k 16:9 mp3 ½ ² Ⅷ ٠١٢ １２３",
    "wow!! really?? yes... (masterpiece:1.2), [brackets] {braces} <angles> under_score-dash—em",
    "! !! a!b ! \"quotes\" 'single' “curly” #tag @me $5 50% a&b a+b=c a*b ^_^ ~`|\\/",
    "café CAFÉ cafe\u0301 Ångström \u212b straße GROSSE ẞ İstanbul ı ﬁne ſ K",
    "Tiếng Việt phở žluťoučký kůň Zażółć gęślą jaźń q\u0307\u0323",
    "Σίσυφος ΣΊΣΥΦΟΣ ᾳ ᾼ ώ",
    "一只可爱的猫 中文mixed英文words123数字 「括弧」、。",
    "猫と犬 カタカナ ｶﾀｶﾅ か\u3099",
    "고양이와 개 \u1100\u1161 가\u11a8",
    "Кошка ЁЖИК قطة תתול बिल्ली แมว γάτα კატა ድመት தமிழ் తెలుగు",
    "𠀀𠮷 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟙𝟚 ᚠᚢᚦ 𓀀 Ꭰ ꭰ Ⴀ ა",
    "😀 🍎 👍🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️ 1️⃣ 🪿 ☃",
    "  two  spaces \t tab\nnew\r\nline \u00a0 \u2003 \u3000 \u0085 \u2028 ",
    "zero\u200bwidth\u200cjoin\u200der\ufeffbom soft\u00adhyphen \u202e mark \x00\x01\x1c\x1f\x7f",
    "private\ue000use \U000f0000 \ufffd \u0378",
    "<|startoftext|>a cat<|endoftext|> <|ENDOFTEXT|> <|StartOfText|>x",
    "</w> a</w>b #version: 0.2 <pad> <unk> [PAD] </s>",
    "a cat " * 60,
    "x" * 300,
    "🪿" * 120,
)


def probes(added: Sequence[AddedToken]) -> Iterator[str]:
    """Yield texts in many scripts, every letter of Latin-1 by itself, and each added token in many surroundings.

    `added` are the tokenizer's own; of more than 64, the first and the last 32 are tried.
    """
    yield from _TEXTS
    yield from (chr(code) for code in range(1, 0x250))
    texts = [token.text for token in added]
    for text in texts if len(texts) <= 64 else texts[:32] + texts[-32:]:
        yield text
        for form in dict.fromkeys((text, text.upper(), text.lower(), text.title(), text.replace(" ", "  "))):
            yield f"a {form} on grass, {form}!"
            yield f"{form}{form} {form}  {form}x x{form} {form}_1 {form}1 _{form} 猫{form}猫 é{form}'s ({form})"
            yield f" \t{form}\n \u3000{form}\u00a0.{form}"
        yield text[:-1] + " " + text[1:] + " " + text[: len(text) // 2]
        yield f"a long prompt of many words, {'and so on ' * 23}{text} {text} {text} {text} {text} end"
    for first, second in zip(texts, texts[1:], strict=False):
        yield f"{first}{second} {second}{first} {first} {second}, {second} {first}"
