"""Train the built-in model `emoji`: a complete Stable Diffusion, small enough for two CPU cores and a repository.

    python train.py data    DATA   lists the emoji; DATA has the unpacked packages, see README.md
    python train.py vae     DATA RUN --minutes 15     AutoencoderKL on the chosen pictures
    python train.py unet    DATA RUN --minutes 90     CLIPTextModel and UNet2DConditionModel on the cached latents
    python train.py decoder DATA RUN --minutes 15     only the decoder again, with fixed latents
    python train.py ship    DATA RUN OUT              writes the diffusers folder, fp16 safetensors

Every stage resumes from its checkpoint in RUN and appends to RUN/training.log.
"""

import argparse
import gzip
import json
import math
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SEED, SIZE = 20261124, 64
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}

# Complete categories, and single subcategories of others: 337 emoji whose pictures differ.
CATEGORIES = {"Animals & Nature", "Food & Drink"}
SUBCATEGORIES = {"heart", "face-smiling", "face-costume"}

# Wordings of the training. benchmarks/captions.json has these and others, which never occur here.
TEMPLATES = ("a {}", "the {}", "{} emoji", "a picture of a {}", "an icon of a {}", "drawing of a {}")
PADDED = 0.25  # of all captions get filler words, see pad_out
HELD_OUT = set("one my sticker tiny photo of please draw on white background best ever".split())  # other wordings
RUDE = {"shit", "shitface", "crap", "turd"}  # words of the lists that are left out
DROPPED = 0.1  # of all captions are empty, so that guidance has an unconditional prediction


def emoji_rows(data: Path) -> list[dict[str, Any]]:
    """Return the chosen emoji in the order of emoji.json, each with `names` (the most common first) and `keywords`.

    A name that two emoji share is removed from both, because a caption must identify one picture.
    """
    keywords: dict[str, list[str]] = json.loads((data / "emojilib/package/dist/emoji-en-US.json").read_text())
    chosen = []
    for row in json.loads((data / "package/emoji.json").read_text()):
        if not row["has_img_google"] or not (row["category"] in CATEGORIES or row["subcategory"] in SUBCATEGORIES):
            continue
        symbol = "".join(chr(int(c, 16)) for c in row["unified"].split("-"))
        words = [_plain(w) for w in keywords.get(symbol, [])]
        words = [w for w in words if w not in RUDE]
        names = [_plain(n) for n in (row["name"] or row["short_name"], *words[:1], *row["short_names"])]
        names = [n for n in names if n not in RUDE]
        chosen.append({"image": row["image"], "names": list(dict.fromkeys(names)), "keywords": words[1:]})
    shared = Counter(name for row in chosen for name in row["names"])
    for row in chosen:
        unique = [n for n in row["names"] if shared[n] == 1]
        row["names"] = unique or row["names"][:1]
        row["keywords"] = [
            k for k in row["keywords"] if k.isascii() and k.replace(" ", "").isalpha() and shared[k] == 0
        ][:6]
    return chosen


def _plain(name: str) -> str:
    return str(name).lower().replace("_", " ").replace("-", " ").strip()


def load_images(data: Path, rows: list[dict[str, Any]]) -> Tensor:
    """Return the pictures on white, [n, 3, 64, 64] float32 in -1..1."""
    images = []
    for row in rows:
        picture = Image.open(data / "package/img/google/64" / row["image"]).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        images.append(np.asarray(white.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def caption(row: dict[str, Any], rng: random.Random) -> str:
    """Return one training caption: a name, a name in a template, a name with keywords, or an empty text."""
    if rng.random() < DROPPED:
        return ""
    name: str = row["names"][0] if rng.random() < 0.5 else rng.choice(row["names"])
    kind = rng.random()
    if kind < 0.5:
        return name
    if kind < 0.75 or not row["keywords"]:
        return rng.choice(TEMPLATES).format(name)
    return ", ".join([name, *rng.sample(row["keywords"], min(len(row["keywords"]), rng.randint(1, 2)))])


def filler_words(tokenizer: CLIPTokenizer, rows: list[dict[str, Any]]) -> list[str]:
    """Return complete words of the vocabulary that are in no name and in no wording of the test, sorted."""
    taken = HELD_OUT | {word for row in rows for name in row["names"] for word in name.split()}
    words = (entry.removesuffix("</w>") for entry in tokenizer.get_vocab() if entry.endswith("</w>"))
    return sorted(word for word in words if word.isascii() and word.isalpha() and word not in taken)


def pad_out(text: str, fillers: list[str], rng: random.Random) -> str:
    """Return `text`, in the fraction PADDED of calls with unrelated words around it, so that the model learns to
    ignore these."""
    if not text or rng.random() > PADDED:
        return text
    before = rng.choices(fillers, k=rng.choice((0, 1, 1, 2, 3)))
    after = rng.choices(fillers, k=rng.choice((0, 0, 1, 2, 3)))
    return " ".join([*before, text, *after])


def write_tokenizer(data: Path, out: Path) -> CLIPTokenizer:
    """Write CLIP's byte-pair vocabulary (49,408 entries) from the merges that OpenCLIP ships, and return the
    tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    lines = gzip.open(data / "open_clip/bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    symbols = [chr(b) for b in visible] + [chr(256 + n) for n in range(len(hidden))]
    entries = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    (out / "vocab.json").write_text(json.dumps({e: i for i, e in enumerate(entries)}, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(str(out / "vocab.json"), str(out / "merges.txt"), model_max_length=77)
    return tokenizer


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
    )


def make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=128,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        block_out_channels=(48, 128, 192),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
    )


class Run:
    """A training run that can be interrupted: log, clock, a checkpoint every five minutes."""

    def __init__(self, folder: Path, stage: str, minutes: float, modules: dict[str, nn.Module], lr: float) -> None:
        self.folder, self.stage, self.minutes, self.modules, self.peak = folder, stage, minutes, modules, lr
        self.params = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr, weight_decay=1e-3, fused=True)
        self.ema = [p.detach().clone() for p in self.params]
        self.step, self.before, self.start, self.saved, self.mean = 0, 0.0, time.time(), time.time(), 0.0
        self.path = folder / f"{stage}.pt"
        if self.path.exists():
            state = torch.load(self.path)
            for name, module in modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema, self.step, self.before = state["ema"], state["step"], state["elapsed"]
        self.log(
            f"start at step {self.step}, {sum(p.numel() for p in self.params) / 1e6:.2f} M parameters, {minutes} min"
        )

    def log(self, line: str) -> None:
        text = f"{self.stage} {line}"
        print(text, flush=True)
        with (self.folder / "training.log").open("a") as file:
            file.write(text + "\n")

    @property
    def elapsed(self) -> float:
        return self.before + time.time() - self.start

    def unfinished(self) -> bool:
        return self.elapsed < self.minutes * 60

    def update(self, loss: Tensor) -> None:
        rate = (
            self.peak
            * min(1, (self.step + 1) / 200)
            * max(0.01, math.cos(math.pi / 2 * self.elapsed / self.minutes / 60))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.params], 1 - decay)
        self.mean = loss.item() if self.mean == 0 else 0.98 * self.mean + 0.02 * loss.item()
        if self.step % 50 == 0:
            self.log(f"step {self.step} {self.elapsed:.0f} s loss {self.mean:.5f} lr {rate:.2e}")
        if time.time() - self.saved > 300:
            self.save()

    def save(self) -> None:
        state = {
            "modules": {n: m.state_dict() for n, m in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "step": self.step,
            "elapsed": self.elapsed,
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)
        self.saved = time.time()

    def finish(self) -> None:
        """Write a checkpoint, then copy the averaged weights into the modules."""
        self.save()
        for average, param in zip(self.ema, self.params, strict=True):
            param.data.copy_(average)
        self.log(f"end at step {self.step} after {self.elapsed:.0f} s")


def _gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    across = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    return across + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


def _psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(F.mse_loss(a.clamp(-1, 1), b).item() / 4)


def train_vae(data: Path, folder: Path, minutes: float) -> None:
    images = load_images(data, emoji_rows(data)).contiguous(memory_format=torch.channels_last)
    vae = make_vae().to(memory_format=torch.channels_last)
    run = Run(folder, "vae", minutes, {"vae": vae}, 2e-3)
    while run.unfinished():
        batch = images[torch.randint(len(images), (16,))]
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        loss = F.mse_loss(decoded, batch) * 2 + (decoded - batch).abs().mean() + 0.5 * _gradient_loss(decoded, batch)
        run.update(loss + 1e-6 * posterior.kl().mean())
    run.finish()
    with torch.no_grad():
        latents = torch.cat([vae.encode(b).latent_dist.mean for b in torch.split(images, 64)])
        decoded = torch.cat([vae.decode(z).sample for z in torch.split(latents, 64)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    run.log(f"reconstruction {_psnr(decoded, images):.2f} dB, scaling_factor {vae.config.scaling_factor}")
    vae.save_pretrained(folder / "vae")


def train_decoder(data: Path, folder: Path, minutes: float) -> None:
    """Train the decoder for sharper pictures while the encoder, and so the UNet's latents, stay fixed."""
    images = load_images(data, emoji_rows(data)).contiguous(memory_format=torch.channels_last)
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(memory_format=torch.channels_last)
    vae.requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat([vae.encode(b).latent_dist.mean for b in torch.split(images, 64)])
    for module in (vae.decoder, vae.post_quant_conv):
        module.requires_grad_(True)
    run = Run(folder, "decoder", minutes, {"vae": vae}, 1e-3)
    while run.unfinished():
        i = torch.randint(len(images), (16,))
        noisy = latents[i] + 0.03 * latents.std() * torch.randn_like(latents[i])
        decoded = vae.decode(noisy).sample
        run.update(
            F.mse_loss(decoded, images[i]) * 2
            + (decoded - images[i]).abs().mean()
            + 0.5 * _gradient_loss(decoded, images[i])
        )
    run.finish()
    with torch.no_grad():
        decoded = torch.cat([vae.decode(z).sample for z in torch.split(latents, 64)])
    run.log(f"reconstruction {_psnr(decoded, images):.2f} dB")
    vae.save_pretrained(folder / "vae_sharp")


def train_unet(data: Path, folder: Path, minutes: float, begin: Path | None = None) -> None:
    """Train epsilon prediction, from scratch or from the weights of the diffusers folder `begin`.

    The loss is weighted by 1 / alpha_bar (at most 50), which makes it the v-prediction loss (Salimans and Ho, arXiv
    2202.00512): the noisy steps, in which the text decides the picture, count as much as others.
    """
    rows = emoji_rows(data)
    tokenizer = write_tokenizer(data, folder / "tokenizer")
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    with torch.no_grad():
        latents = torch.cat([vae.encode(b).latent_dist.mean for b in torch.split(load_images(data, rows), 64)])
    latents = (latents * vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)
    unet, text_encoder = make_unet().to(memory_format=torch.channels_last), make_text_encoder()
    if begin is not None:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(begin / "unet").float().state_dict())
        text_encoder.load_state_dict(CLIPTextModel.from_pretrained(begin / "text_encoder").float().state_dict())
    last, convolve = unet.conv_out, unet.conv_out.forward
    last.forward = torch.autocast("cpu", enabled=False)(lambda x: convolve(x.float()))  # bfloat16 is too coarse here
    scheduler = DDPMScheduler(**BETAS)
    weights = (1 / scheduler.alphas_cumprod).clamp(max=50)
    rng = random.Random(SEED)
    fillers = filler_words(tokenizer, rows)
    run = Run(folder, "unet", minutes, {"unet": unet, "text_encoder": text_encoder}, 1e-3)
    run.log(f"{len(rows)} emoji, from {'scratch' if begin is None else 'earlier weights'}")
    while run.unfinished():
        i = torch.randint(len(rows), (32,))
        captions = [pad_out(caption(rows[k], rng), fillers, rng) for k in i.tolist()]
        ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        states = text_encoder(input_ids=ids).last_hidden_state
        noise, timesteps = torch.randn_like(latents[i]), torch.randint(0, 1000, (len(i),))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = unet(scheduler.add_noise(latents[i], noise, timesteps), timesteps, states).sample
        run.update(((predicted - noise).square().mean((1, 2, 3)) * weights[timesteps]).mean())
    run.finish()
    unet.save_pretrained(folder / "unet")
    text_encoder.save_pretrained(folder / "text_encoder")


def ship(data: Path, folder: Path, out: Path) -> None:
    """Write the diffusers folder from the current checkpoints: averaged weights, fp16."""
    from diffusers import StableDiffusionPipeline

    unet, text_encoder = make_unet(), make_text_encoder()
    state = torch.load(folder / "unet.pt")
    average = iter(state["ema"])
    for module in (unet, text_encoder):
        for param in module.parameters():
            param.data.copy_(next(average))
    sharp = folder / "vae_sharp"
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(sharp if sharp.exists() else folder / "vae"),
        text_encoder=text_encoder,
        tokenizer=write_tokenizer(data, folder / "tokenizer"),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**BETAS, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    write_tokenizer(data, out / "tokenizer")
    (out / "tokenizer/tokenizer.json").unlink(missing_ok=True)  # the same content, three times as large
    config = json.loads((out / "vae/config.json").read_text())
    config.pop("_name_or_path", None)  # a path of the machine that trained it
    (out / "vae/config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = out / "text_encoder/model.safetensors"
    prefixed = {f"text_model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(prefixed, weights, {"format": "pt"})  # names that every version of transformers reads, not only 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("data", "vae", "unet", "decoder", "ship"))
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--begin", type=Path, help="for the stage unet: a diffusers folder with the initial weights")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    if arguments.stage == "data":
        for row in emoji_rows(arguments.data):
            print(row["image"], *row["names"], sep=" | ", end=f"  # {', '.join(row['keywords'])}\n")
        return
    if arguments.stage == "ship":
        ship(arguments.data, arguments.run, arguments.out)
        return
    arguments.run.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "vae":
        train_vae(arguments.data, arguments.run, arguments.minutes)
    elif arguments.stage == "unet":
        train_unet(arguments.data, arguments.run, arguments.minutes, arguments.begin)
    else:
        train_decoder(arguments.data, arguments.run, arguments.minutes)


if __name__ == "__main__":
    main()
