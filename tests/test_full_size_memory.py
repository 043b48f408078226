"""Memory of writing and of exporting Stable Diffusion 1.5 in full size, with seeded random weights."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pocketdiffusion.runtime.bundle.bundle import open_bundle

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def proportional_bytes(root: psutil.Process) -> int:
    """Return the proportional set size (PSS) of a process and its descendants: pages that several processes share count
    as a fraction in each."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            fields = Path(f"/proc/{process.pid}/smaps_rollup").read_text().split("Pss:")
        except OSError:  # it has ended
            continue
        if len(fields) > 1:
            total += int(fields[1].split()[0]) * 1024
    return total


@pytest.mark.outside_ci
def test_onnx_is_written_within_1200_mb(tmp_path: Path) -> None:
    script = str(BENCHMARKS / "full_size.py")
    subprocess.run([sys.executable, script, "write", tmp_path, "float16"], check=True)
    peak = 0
    with subprocess.Popen([sys.executable, script, "emit", tmp_path, "pixel-8"]) as child:
        root = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, proportional_bytes(root))
            time.sleep(0.05)
    assert child.returncode == 0
    written = sum(file.stat().st_size for file in (tmp_path / "artifacts").rglob("*") if file.is_file())
    assert written > 2 * 1_060_000_000  # float16 weights of all parts
    assert 500e6 < peak < 1200e6, f"{peak / 1e6:.0f} MB"


@pytest.mark.outside_ci
def test_a_quick_export_passes_its_proof_within_5_gb(tmp_path: Path) -> None:
    figures, bundle = tmp_path / "figures.json", tmp_path / "bundle"
    options = ["--proof", "quick", "--split-unet", "3", "--max-memory", "5GB", "--bundle", str(bundle)]
    command = [sys.executable, str(BENCHMARKS / "full_export.py"), "sd15", *options, "-o", str(figures)]
    subprocess.run(command, cwd=tmp_path, check=True)
    *_, complete = json.loads(figures.read_text())["stages"]
    assert complete["name"] == "whole" and complete["anonymous_mb"] < 5000
    manifest = open_bundle(bundle).manifest
    assert manifest.proof_kind == "quick" and all(verdict.passed for verdict in manifest.verdicts)
