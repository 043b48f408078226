"""Checkpoints by hub id, from the cache or from a hub that runs on this machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.checkpoint_folders import opened

MISSING = ("unet has no safetensors", "names vae", "has no tokenizer_config.json")
UNET = "unet/diffusion_pytorch_model.safetensors"
REPO, COMMIT = "someone/tiny-sd", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be served."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


@pytest.mark.slow
def test_hub_id_opens_offline_from_the_cache_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    repo = tmp_path / "hub/models--someone--tiny-sd"
    shutil.copytree(tiny_checkpoint, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    half = Path(shutil.copytree(repo, tmp_path / "hub/models--someone--half-sd")) / "snapshots" / COMMIT
    (half / UNET).unlink()
    bare = Path(shutil.copytree(repo, tmp_path / "hub/models--someone--bare-sd")) / "snapshots" / COMMIT
    shutil.rmtree(bare / "vae")
    mute = Path(shutil.copytree(repo, tmp_path / "hub/models--someone--mute-sd")) / "snapshots" / COMMIT
    (mute / "tokenizer/tokenizer_config.json").unlink()
    names = [REPO, "someone/other", "someone/half-sd", "someone/bare-sd", "someone/mute-sd"]
    cached, other, *parts = in_subprocess(names, {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"})
    for name, missing, said in zip(names[2:], MISSING, parts, strict=True):
        assert said.startswith(f"UserError the copy of {name} in the hub's cache is incomplete") and missing in said
        assert said.endswith("run the same command again online, which downloads the rest")
    assert cached == f"{REPO} {COMMIT} {opened(tiny_checkpoint).fingerprint}"
    assert other.startswith(
        "UserError someone/other is not a folder, is not in the hub's cache, and cannot be downloaded: "
    )


@pytest.mark.slow
def test_hub_id_is_downloaded_without_what_is_not_needed(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"onnx")
    shutil.copytree(folder / "vae", folder / "vae_decoder", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "vae_decoder/openvino_model.bin").write_bytes(b"openvino")
    (folder / "text_encoder/flax_model.msgpack").write_bytes(b"flax")
    (folder / "text_encoder/pytorch_model.bin").write_bytes(b"pickle")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker/model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    pickled = {f"{n[:-12]}.bin" if n.startswith("unet/d") else n: b for n, b in files.items()}
    repositories = {
        REPO: files,
        "someone/no-index": {n: b for n, b in files.items() if n != "model_index.json"},
        "someone/pickled": pickled,
    }
    server, asked = hub_of(repositories)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    try:
        whole, *others = in_subprocess([*repositories, "someone/unknown"], environment)
    finally:
        server.shutdown()
        server.server_close()
    assert whole == f"{REPO} {COMMIT} {opened(folder).fingerprint}"
    got = [path.partition(f"/resolve/{COMMIT}/") for path in asked if "/resolve/" in path]
    assert {name for repo, _, name in got if repo != f"/{REPO}"} == {"README.md", "model_index.json"}
    assert {name for repo, _, name in got if repo == f"/{REPO}"} == {
        *("README.md", "model_index.json", "scheduler/scheduler_config.json", UNET, "unet/config.json"),
        *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
        *(f"tokenizer/{file.name}" for file in (folder / "tokenizer").iterdir()),
    }
    for said, words in zip(others, ["no model_index.json", "is a pickle", "no such model on the hub"], strict=True):
        assert said.startswith("UserError ") and words in said
    assert in_subprocess([REPO], {**environment, "HF_HUB_OFFLINE": "1"}) == [whole]


def in_subprocess(names: list[str], environment: dict[str, str]) -> list[str]:
    """Opens checkpoints in a new process, since huggingface_hub reads its settings once. Each as a line."""
    code = (
        "import sys\n"
        "from pocketdiffusion.export.opening import open_checkpoint\n"
        "from pocketdiffusion.runtime.errors import UserError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        c = open_checkpoint(name, progress=lambda line: None)\n"
        "        print(c.name, c.revision, c.fingerprint)\n"
        "    except UserError as error:\n"
        "        print('UserError', error)\n"
    )
    plain = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    settings = plain | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    run = subprocess.run(
        [sys.executable, "-c", code, *names], env=settings, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(names)
    return lines


def hub_of(repositories: dict[str, dict[str, bytes]]) -> tuple[ThreadingHTTPServer, list[str]]:
    """A running hub on this machine, with the listings of repositories and their files; and the paths asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            asked.append(path)
            for repo, files in repositories.items():
                if path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/main"):
                    siblings = [{"rfilename": name} for name in files]
                    return self.answer(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
                if path.startswith(f"/api/models/{repo}/tree/"):
                    tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]
                    return self.answer(json.dumps(tree).encode())
                content = files.get(path.removeprefix(f"/{repo}/resolve/{COMMIT}/"))
                if content is not None:
                    return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)
            self.answer(b"", 404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked
