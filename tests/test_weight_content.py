"""Every weight is read once before any work: its hash, and whether it is finite."""

import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command import call

from pocketdiffusion.export.checkpoints import weight_content
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checkpoints.weight_content import read_content
from pocketdiffusion.export.opening import open_checkpoint

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
BROKEN = "mid_block.resnets.0.conv2.weight"


@pytest.fixture(scope="module")
def broken(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with NaN in one weight, infinity in another, and NaN in a tensor that nothing uses."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("broken") / "tiny-copy"))
    tensors = load_file(folder / UNET)
    tensors[BROKEN][3, 1, 2, 0] = math.nan
    tensors["time_embedding.linear_1.bias"][2] = -math.inf
    save_file(tensors, folder / UNET)
    vae = load_file(folder / VAE) | {"loss.logvar": torch.full((1,), math.nan)}
    save_file(vae, folder / VAE)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "BROKEN", "--target", "generic", "-o", "OUT"),
        ("search", "BROKEN", "--target", "pixel-8", "--budget-mb", "1", "-o", "OUT.json"),
        ("compare", "BROKEN", "TINY"),
        ("compare", "TINY", "BROKEN"),
        ("inspect", "BROKEN"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_is_not_finite_is_named_before_any_work(
    arguments: tuple[str, ...], broken: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    places = {"BROKEN": broken, "TINY": tiny_checkpoint, "OUT": tmp_path / "out", "OUT.json": tmp_path / "out.json"}
    done = call(*(places.get(word, word) for word in arguments))
    assert done.returncode == (1 if arguments[0] == "compare" else 2), done.stderr
    line = done.stderr.splitlines()[-1]
    assert f"{UNET}: {BROKEN} is nan at index [3, 1, 2, 0], and 1 more tensors" in line, done.stderr
    assert "recording" not in done.stderr + done.stdout and not list(tmp_path.iterdir())
    if arguments[0] == "inspect":
        assert "vae_decoder" in done.stdout and "loss.logvar" in done.stderr


def test_verify_against_names_it_too(broken: Path, tiny_bundle: Path) -> None:
    done = call("verify", tiny_bundle, "--against", broken)
    note, line = done.stderr.splitlines()
    assert done.returncode == 2 and "loss.logvar" in note and f"{BROKEN} is nan" in line, done.stderr


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(dtype, value) for dtype in DTYPES for value in (math.nan, math.inf, -math.inf)]
    + [(torch.float8_e5m2, -math.inf), (torch.float8_e4m3fn, math.nan)],  # the latter has no infinity
    ids=str,
)
@pytest.mark.parametrize("flat", [0, 40, 77])
def test_the_first_of_each_type_is_found_by_index(
    dtype: torch.dtype, value: float, flat: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_content, "PIECE", 16)
    tensor = torch.linspace(-200, 200, 78).to(dtype)
    tensor[flat:] = torch.tensor(value).to(dtype)
    sound = torch.linspace(-400, 400, 11, dtype=torch.float64).to(dtype)
    integers = torch.full((9,), -1)
    save_file(
        {"a": sound, "b": tensor.reshape(2, 3, 13), "c": sound.clone(), "i": integers}, tmp_path / "x.safetensors"
    )
    refs = read_header(tmp_path / "x.safetensors")
    content = read_content({"x.safetensors": tmp_path / "x.safetensors"}, {"part": refs})
    (found,) = content.broken.values()
    assert found.name == "b" and found.index == (flat // 39, flat % 39 // 13, flat % 13)
    expected = float(tensor[flat])
    assert found.value == expected or math.isnan(found.value) and math.isnan(expected)
    digest = hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    assert content.fingerprint == hashlib.sha256(f"x.safetensors {digest}\n".encode()).hexdigest()


def test_what_float32_cannot_hold_is_not_finite(tmp_path: Path) -> None:
    save_file({"wide": torch.tensor([1.0, 1e300], dtype=torch.float64)}, tmp_path / "x.safetensors")
    refs = read_header(tmp_path / "x.safetensors")
    (found,) = read_content({"x.safetensors": tmp_path / "x.safetensors"}, {"part": refs}).broken.values()
    assert found.index == (1,) and found.value == math.inf


def test_opening_reads_no_weight(tiny_checkpoint: Path) -> None:
    """A folder that is refused for its configuration is refused at once."""
    assert "content" not in vars(open_checkpoint(str(tiny_checkpoint), progress=lambda line: None))
