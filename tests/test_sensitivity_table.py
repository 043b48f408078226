"""Sensitivities are kept in a table: a run that was stopped goes on from it, and that of another model is replaced."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.analysis_here import analyse_here
from support.processes import begun_by, outlived
from support.targets import only

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.quantization import analyse, analysis_key
from pocketdiffusion.export.reference.record import REQUESTS
from pocketdiffusion.quantize.measure import cache
from pocketdiffusion.quantize.measure.cache import open_table
from pocketdiffusion.quantize.mixed_precision.search import open_search
from pocketdiffusion.quantize.recipe_file import write_recipe
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.search import search, search_requests

PROMPTS = "bell pepper\npurple heart\n"
W8, W8A8, W2 = Scheme("linear", 8), Scheme("linear", 8, activation="int8"), Scheme("linear", 2)
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
CONV_OUT, CONV_IN = "unet.conv_out.weight", "unet.conv_in.weight"


# The table


def test_a_table_keeps_what_was_measured(tmp_path: Path) -> None:
    file, said = tmp_path / "table.jsonl", list[str]()
    table = open_table(file, "a", said.append)
    table.add(("unet", "w", W8), 0.1 + 0.2)
    table.add(("unet", "w", W8A8), 1e-300)
    with file.open("a") as stream:
        stream.write('{"component": "unet", "wei')  # where a run was killed
    again = open_table(file, "a", said.append)
    assert again.found == {("unet", "w", W8): 0.1 + 0.2, ("unet", "w", W8A8): 1e-300}
    again.add(("unet", "v", W8), 0.5)
    assert len(open_table(file, "a", said.append).found) == 3
    assert all("2 sensitivities" in line or "3 sensitivities" in line for line in said)


@pytest.mark.parametrize("fingerprint", ["a", "b"])
def test_a_table_is_replaced_not_written_over(fingerprint: str, tmp_path: Path) -> None:
    """A run that is killed while it opens the table leaves the old one or the new one."""
    file = tmp_path / "table.jsonl"
    open_table(file, "a", lambda line: None).add(("unet", "w", W8), 0.5)
    kept = file.read_bytes()
    os.link(file, tmp_path / "old.jsonl")
    open_table(file, fingerprint, lambda line: None)
    assert (tmp_path / "old.jsonl").read_bytes() == kept and not file.samefile(tmp_path / "old.jsonl")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_table_of_another_model_is_begun_afresh(tmp_path: Path) -> None:
    file, said = tmp_path / "table.jsonl", list[str]()
    open_table(file, "a", said.append).add(("unet", "w", W8), 0.5)
    assert open_table(file, "b", said.append).found == {}
    assert "from scratch" in said[0] and str(file) in said[0]
    assert open_table(file, "a", said.append).found == {}  # the old one is gone


@pytest.mark.parametrize("content", ["{}\n", "notes\n", '["a"]\n', "\x00\xff\n"])
def test_what_is_no_table_is_not_overwritten(content: str, tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="not a sensitivity table"):
        open_table(file, "a", lambda line: None)
    assert file.read_bytes() == content.encode("latin-1")


# Runs and processes

SEARCH = """
import sys
from pathlib import Path
from support.targets import only

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.search import search

if __name__ == "__main__":
    model, out, prompts, workers = sys.argv[1:]
    options = {"prompts": Path(prompts), "workers": int(workers), "progress": print}
    search(model, only("tflite"), Path(out), ExportOptions(min_psnr=45), **options)
"""


@pytest.fixture(scope="module")
def run(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Starts a search in a folder of its own, with a number of processes."""
    home = tmp_path_factory.mktemp("runs")
    (home / "run.py").write_text(SEARCH)
    (home / "search.txt").write_text(PROMPTS)

    def start(folder: Path, workers: int) -> subprocess.Popen[str]:
        arguments = [micro_checkpoint, folder / "out.json", home / "search.txt", workers]
        return subprocess.Popen(
            [sys.executable, home / "run.py", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return start


@pytest.mark.slow  # three runs, each with processes of its own
def test_a_killed_run_goes_on_and_gives_the_same_recipe(run: Any, tmp_path: Path) -> None:
    """One run with two processes, and one with a single process that is killed midway and started again."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", 2)
    table = tmp_path / "killed/out.sensitivity.jsonl"
    killed = run(tmp_path / "killed", 1)
    while not table.exists() or table.read_bytes().count(b"\n") < 30:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    begun = begun_by(killed.pid)
    assert any("spawn_main" in line for line in begun.values())
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed/out.json").exists()
    kept = table.read_bytes().count(b"\n") - 1
    resumed = run(tmp_path / "killed", 1)
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert f"{kept} sensitivities are in" in said
    others, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, others
    assert "sensitivities are in" not in others
    assert (tmp_path / "killed/out.json").read_bytes() == (tmp_path / "whole/out.json").read_bytes()
    rows = [json.loads(line) for line in table.read_text().splitlines()[1:]]
    keys = {(row["component"], row["weight"], row["scheme"]["bits"]) for row in rows}
    assert len(keys) == len(rows) > kept
    assert load_recipe(str(tmp_path / "killed/out.json")).schemes is not None
    assert not outlived(begun)


def test_an_interrupted_run_goes_on_and_gives_the_same_recipe(micro_checkpoint: Path, tmp_path: Path) -> None:
    """As above, in this process, and interrupted where a user may."""
    (tmp_path / "search.txt").write_text(PROMPTS)
    requests = search_requests(tmp_path / "search.txt")
    checkpoint = open_checkpoint(str(micro_checkpoint))

    def written(name: str, interrupt: int | None) -> bytes:
        said = list[str]()

        def progress(line: str) -> None:
            said.append(line)
            if interrupt is not None and sum("single weights" in line for line in said) == interrupt:
                raise KeyboardInterrupt

        folder = tmp_path / f"{name} {interrupt}"
        folder.mkdir()
        table = open_table(tmp_path / f"{name}.jsonl", "a", progress)
        analysis = analyse_here(checkpoint, requests, folder, table, progress)
        opened = open_search(analysis, "tflite", find_backend("tflite").search_storages("std"))
        write_recipe(tmp_path / f"{name}.json", opened.recipe(opened.smallest_with_median(45)))
        return (tmp_path / f"{name}.json").read_bytes()

    whole = written("whole", None)
    with pytest.raises(KeyboardInterrupt):
        written("stopped", 7)
    assert not (tmp_path / "stopped.json").exists()
    lines = (tmp_path / "stopped.jsonl").read_bytes().count(b"\n")
    assert 1 < lines < (tmp_path / "whole.jsonl").read_bytes().count(b"\n")
    assert written("stopped", None) == whole


def test_a_process_that_is_killed_is_one_line_and_the_next_run_goes_on(micro_checkpoint: Path, tmp_path: Path) -> None:
    """As the system does where memory runs out."""
    table = tmp_path / "table.jsonl"
    checkpoint = open_checkpoint(str(micro_checkpoint))
    parts, requests = components(checkpoint), search_requests()[:1]
    own = set(begun_by(os.getpid()))

    def kill(line: str) -> None:
        if "single weights" in line:
            for pid, command in begun_by(os.getpid()).items():
                if pid not in own and "spawn_main" in command:
                    os.kill(pid, signal.SIGKILL)

    with (
        pytest.raises(UserError, match="a measuring process was killed, .* run again, it continues where it was"),
        analyse(checkpoint, parts, requests, file=table, workers=1, progress=kill) as analysis,
    ):
        analysis.measure([part.spec.name for part in parts], [W8])
    with analyse(checkpoint, parts, requests, file=table, workers=1) as analysis:
        assert 0 < len(analysis.table.found) < sum(len(weights_of(part)) for part in parts)


def test_a_changed_model_is_measured_afresh(micro_checkpoint: Path, tmp_path: Path) -> None:
    said = list[str]()
    table = tmp_path / "table.jsonl"
    (tmp_path / "search.txt").write_text(PROMPTS)
    requests = search_requests(tmp_path / "search.txt")
    checkpoint = open_checkpoint(str(micro_checkpoint))
    with analyse(checkpoint, components(checkpoint), requests, file=table, progress=said.append) as analysis:
        analysis.table.add(("unet", CONV_OUT, W8), 0.5)
    with analyse(checkpoint, components(checkpoint), requests, file=table, progress=said.append) as analysis:
        assert len(analysis.table.found) == 1
    changed = shutil.copytree(micro_checkpoint, tmp_path / "model")
    tensors = safetensors.numpy.load_file(changed / UNET_FILE)
    tensors["conv_in.weight"][0, 0, 0, 0] += 1e-3
    safetensors.numpy.save_file(tensors, changed / UNET_FILE)
    other = open_checkpoint(str(changed))
    fresh = shutil.copy(table, tmp_path / "other.jsonl")
    with analyse(other, components(other), requests, file=Path(fresh), progress=said.append) as analysis:
        assert analysis.table.found == {}
    prompts = [*requests[:1], replace(requests[1], prompt="squid")]
    with analyse(checkpoint, components(checkpoint), prompts, file=table, progress=said.append) as analysis:
        assert analysis.table.found == {}
    assert [line for line in said if "from scratch" in line] == said[1:]


def test_another_version_of_the_code_or_a_library_is_another_key(
    micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(str(micro_checkpoint))
    parts = components(checkpoint)
    before = analysis_key(checkpoint, parts, REQUESTS)
    assert analysis_key(checkpoint, parts, REQUESTS) == before
    for module, name, other in ((np, "__version__", "3.0"), (cache, "SENSITIVITY_VERSION", 0)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, other)
            assert analysis_key(checkpoint, parts, REQUESTS) != before
    assert analysis_key(checkpoint, parts, REQUESTS) == before


@pytest.mark.parametrize("file", ["special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"])
def test_special_and_added_tokens_are_in_the_key(file: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    """Prompts become other tokens by them, and other pictures are drawn."""
    folder = shutil.copytree(micro_checkpoint, tmp_path / "model")
    checkpoint = open_checkpoint(str(folder))
    before = analysis_key(checkpoint, components(checkpoint), REQUESTS)
    changed = folder / "tokenizer" / file
    changed.write_text(changed.read_text() + " " if changed.exists() else "{}")
    assert analysis_key(checkpoint, components(checkpoint), REQUESTS) != before


def test_another_sampler_measures_afresh(micro_checkpoint: Path, tmp_path: Path) -> None:
    """The sensitivities of drawings with another sampler are not those of this one."""
    own, said = open_checkpoint(str(micro_checkpoint)), list[str]()
    parts, other = components(own), replace(own, sampler="euler")

    def opened(checkpoint: Checkpoint) -> dict[Any, float]:
        table = tmp_path / "table.jsonl"
        with analyse(checkpoint, parts, REQUESTS, file=table, workers=1, progress=said.append) as analysis:
            found = dict(analysis.table.found)
            analysis.table.add(("unet", CONV_IN, W8), 0.5)
        return found

    assert [len(opened(checkpoint)) for checkpoint in (own, own, other, other, own)] == [0, 1, 0, 1, 0]
    assert ["from scratch" in line for line in said] == [False, True, False, True]
    with pytest.raises(UserError, match="did you mean euler"):
        search(
            str(micro_checkpoint), only("tflite"), tmp_path / "out.json", ExportOptions(budget_mb=1.0, sampler="eulr")
        )
