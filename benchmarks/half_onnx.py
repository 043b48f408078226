"""Measure float16 arithmetic in an ONNX bundle: its graphs rewritten to float16 throughout, on the stand-in arm64.

    python benchmarks/half_onnx.py DIR [GRAPH ...] [--standins FOLDER] [--core CORE] [-o FILE.json]

DIR is a bundle with ONNX graphs. onnxruntime's converter rewrites each; the operators between the timestep and the
first matrix product stay float32. Operators without a float16 kernel are cast to float32 and back: on x86 nearly all of
them. The aarch64 build has kernels for Conv, Gemm, MatMul, Add, Mul and LayerNormalization, and none for
InstanceNormalization, MultiHeadAttention, Sigmoid and Resize. No bundle ships such a graph, so the results are not
verdicts.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import onnx
import typer
from onnxruntime.transformers.float16 import convert_float_to_float16
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.cli.options import STANDINS
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.devices.judge import find_place
from pocketdiffusion.runtime.engines.onnx import ENGINE, open_runner
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.check import scope_of
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.recording import first_middle_last_steps
from pocketdiffusion.runtime.verify.tolerances import check_artifact
from pocketdiffusion.verify import core_of


def halve(source: Path, path: Path) -> None:
    """Write the graph of `source` to `path` with float16 arithmetic; inputs and outputs stay float32."""
    model = onnx.load(source)
    reached, kept = {"timestep"}, []
    for node in model.graph.node:
        if reached & set(node.input) and node.op_type not in ("Gemm", "MatMul"):
            reached |= set(node.output)
            kept.append(node.name)
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept or None), path)


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle with ONNX graphs.")],
    names: Annotated[list[str] | None, typer.Argument(help="Names of graphs. Default: all.")] = None,
    standins: Annotated[Path, typer.Option(help="Folder of the installed stand-ins.")] = STANDINS,
    core: Annotated[str | None, typer.Option(help="CPU model, a name that qemu knows. Default: the target's.")] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/half_onnx.json"),
) -> None:
    opened = open_bundle(bundle)
    if "onnx" not in opened.manifest.graphs:
        raise UserError(f"the bundle {bundle} has no ONNX graphs: export it with --format onnx")
    trajectory = first_middle_last_steps(read_golden(opened)[0])
    place = find_place("arm64", standins.expanduser(), core or core_of(opened.manifest.target.name), 600)
    table = Table("output", "host dB", "arm64 dB", "floor", title=f"{bundle} in float16 throughout, {place.core}")
    rows = []
    for name in names or opened.manifest.graphs["onnx"]:
        graph = opened.manifest.graphs["onnx"][name]
        with TemporaryDirectory() as scratch:
            halve(bundle / graph.path, Path(scratch) / "model.onnx")
            half = graph.model_copy(update={"path": "model.onnx"})
            runners = {
                "host": open_runner(Path(scratch) / "model.onnx", graph.spec),
                "arm64": place.open(Path(scratch), ENGINE.standin_runs["arm64"][0], half),
            }
            found = {
                device: judge_graph(
                    check_artifact(replace(scope_of("onnx", graph), arithmetic="float16", device=device), graph),
                    runner,
                    [trajectory],
                )
                for device, runner in runners.items()
            }
        for here, there in zip(found["host"], found["arm64"], strict=True):
            table.add_row(here.subject, f"{here.psnr_db:.1f}", f"{there.psnr_db:.1f}", f"{there.floor_db:.0f}")
            rows.append({"output": here.subject, "host_db": here.psnr_db, "arm64_db": there.psnr_db})
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"core": place.core, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run(lambda: typer.run(main))
