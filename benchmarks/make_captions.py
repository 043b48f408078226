"""Make the inputs of quality.py from the training data: captions.json and emoji.png (the pictures, 26 in a row).

    python benchmarks/make_captions.py DATA

200 captions, seeded: 140 in wordings of the training, 60 in wordings that the training never used.
"""

import json
import random
import sys
from pathlib import Path

from PIL import Image

from pocketdiffusion.models.emoji.train import TEMPLATES, caption, emoji_rows, load_images

HERE = Path(__file__).parent
COLUMNS = 26
UNTRAINED = (
    "one {}",
    "my {}",
    "{} sticker",
    "a tiny {}",
    "photo of {}",
    "please draw a {}",
    "{} on a white background",
    "the best {} ever",
)


def main() -> None:
    data = Path(sys.argv[1])
    rows = emoji_rows(data)
    rng = random.Random(7)
    captions: list[dict[str, str | int]] = []
    while len(captions) < 140:
        index = rng.randrange(len(rows))
        text = caption(rows[index], rng)
        if text and text not in {c["caption"] for c in captions}:
            captions.append({"caption": text, "emoji": index, "trained": True})
    assert not set(UNTRAINED) & set(TEMPLATES)
    for number, index in enumerate(rng.sample(range(len(rows)), 60)):
        text = UNTRAINED[number % len(UNTRAINED)].format(rows[index]["names"][0])
        captions.append({"caption": text, "emoji": index, "trained": False})
    names = [row["names"][0] for row in rows]
    (HERE / "captions.json").write_text(
        json.dumps({"emoji": names, "captions": captions}, indent=1, ensure_ascii=False) + "\n"
    )
    pictures = ((load_images(data, rows) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    sheet = Image.new("RGB", (COLUMNS * 64, -(-len(rows) // COLUMNS) * 64), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (i % COLUMNS * 64, i // COLUMNS * 64))
    sheet.save(HERE / "emoji.png", optimize=True)


if __name__ == "__main__":
    main()
