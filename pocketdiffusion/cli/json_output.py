"""The documents of --json, one per command, described in docs/COMMANDS.md. Fields are only added, never changed.

Numbers that are not finite are the texts "inf", "-inf" and "nan", as in a bundle's own files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketdiffusion.compare import Compared
    from pocketdiffusion.estimates import ExportPlan
    from pocketdiffusion.export.component import Component
    from pocketdiffusion.export.targets import Target
    from pocketdiffusion.runtime.bundle.manifest import Graph, Manifest
    from pocketdiffusion.runtime.bundle.verdicts import Verdict
    from pocketdiffusion.runtime.graph_spec import TensorSpec
    from pocketdiffusion.search import Found
    from pocketdiffusion.verify import Verified


def dump(record: Any) -> str:
    """Return `record` as JSON text, indented, with a newline at its end."""
    return json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return `value` with dataclasses as objects, paths as texts, and numbers that are not finite as texts."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def targets_record(targets: Iterable["Target"]) -> list[dict[str, Any]]:
    """Return the phones with their facts and artifacts."""
    return [
        {
            "name": each.name,
            "title": each.title,
            "soc": each.soc,
            "memory_mb": each.memory_mb,
            "os": each.os,
            "os_floor": each.os_floor,
            "artifacts": [
                {"format": a.format, "profile": a.profile, "recipe": a.recipe, "compute_unit": a.compute_unit}
                for a in each.artifacts
            ],
        }
        for each in targets
    ]


def bundle_record(manifest: "Manifest") -> dict[str, Any]:
    """Return the document of a bundle. `verdicts` is null if the proof part is not installed."""
    from pocketdiffusion.runtime.bundle.stage_memory import predict_peaks

    size = manifest.latents
    return {
        "kind": "bundle",
        "model": manifest.model.name,
        "target": manifest.target.name,
        "bundle_id": manifest.bundle_id,
        "runtime_id": manifest.runtime_id,
        "passed": manifest.proof.passed,
        "width": size.width * size.scale,
        "height": size.height * size.scale,
        "default_sampler": manifest.scheduler.default_sampler,
        "defaults": manifest.defaults.model_dump(mode="json"),
        "graphs": [
            _graph_record(manifest, format, name, graph)
            for format, graphs in manifest.graphs.items()
            for name, graph in graphs.items()
        ],
        "peaks": {
            format: {stage: peak.model_dump() for stage, peak in predict_peaks(manifest.program, graphs).items()}
            for format, graphs in manifest.graphs.items()
        },
        "verdicts": [_record(verdict) for verdict in manifest.verdicts] if manifest.has_proof else None,
    }


def _record(verdict: "Verdict") -> dict[str, Any]:
    """Return a verdict in the form of proof.json."""
    from pocketdiffusion.runtime.bundle.verdicts import record_verdict

    return record_verdict(verdict).model_dump(mode="json")


def _graph_record(manifest: "Manifest", format: str, name: str, graph: "Graph") -> dict[str, Any]:
    return {
        "format": format,
        "name": name,
        "profile": graph.profile,
        "recipe": graph.recipe,
        "storage": graph.storage,
        "arithmetic": graph.arithmetic,
        "compute_unit": graph.compute_unit,
        "bytes": sum(manifest.files[path].size for path in graph.files),
        "parameters": graph.parameters if manifest.has_proof else None,
        "memory": None if graph.memory is None else graph.memory.model_dump(mode="json"),
        "inputs": [_tensor_record(tensor) for tensor in graph.spec.inputs],
        "outputs": [_tensor_record(tensor) for tensor in graph.spec.outputs],
    }


def _tensor_record(tensor: "TensorSpec") -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def model_record(name: str, licence: str, parts: Sequence["Component"]) -> dict[str, Any]:
    """Return the document of a checkpoint."""
    return {
        "kind": "model",
        "name": name,
        "licence": licence,
        "components": [
            {
                "name": part.spec.name,
                "tensors": len(part.weights),
                "parameters": sum(prod(ref.shape) for ref in part.weights.values()),
                "dtypes": sorted({ref.dtype for ref in part.weights.values()}),
                "inputs": [_tensor_record(tensor) for tensor in part.spec.inputs],
                "outputs": [_tensor_record(tensor) for tensor in part.spec.outputs],
            }
            for part in parts
        ],
    }


def verify_record(verified: "Verified") -> dict[str, Any]:
    """Return every verdict of verify, and the names of what was not run or not judged."""
    from pocketdiffusion.runtime.bundle.verdicts import record_verdict

    verdicts = [record_verdict(verdict) for verdict in verified.verdicts]
    return {
        "bundle": str(verified.bundle.folder),
        "bundle_id": verified.bundle.manifest.bundle_id,
        "device": verified.device,
        "passed": bool(verdicts) and all(verdict.passed for verdict in verdicts),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
        "not_run": list(verified.skipped),
        "not_judged": verified.not_judged,
    }


def search_record(output: Path, found: "Found") -> dict[str, Any]:
    """Return the recipe file that search wrote, its size and quality, and the points of its plot."""

    def points(table: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
        return [{"name": name, "mb": mb, "median_db": db} for name, (mb, db) in table.items()]

    return {
        "recipe": str(output),
        "plot": str(output.with_suffix(".svg")),
        "bytes": found.measured.nbytes,
        "median_db": found.measured.median_db,
        "uniform": points(found.uniform),
        "searched": points(found.searched),
    }


def compare_record(a: str, b: str, compared: "Compared", broken: str) -> dict[str, Any]:
    """Return the document of compare, without single layers. `broken`: the bound that does not hold, "" if none."""
    difference = compared.difference
    pictures = [
        {
            "prompt": p.prompt,
            "psnr_db": p.psnr_db,
            "ssim": p.ssim,
            "drift_db": list(p.drift_db),
            "guided_db": list(guided),
        }
        for p, guided in zip(difference.pictures, difference.guided_db, strict=True)
    ]
    return {
        "a": a,
        "b": b,
        "sides": [asdict(side) for side in compared.sides],
        "median_db": difference.median_db,
        "lowest_db": difference.lowest_db,
        "time_ratio": compared.time_ratio,
        "pictures": pictures,
        "outputs": [
            {
                "subject": v.subject,
                "psnr_db": v.psnr_db,
                "max_abs": v.max_abs,
                "relative": v.relative,
                "cases": v.cases,
                "worst_case": v.worst_case,
            }
            for v in difference.graphs
        ],
        "first_layer_over_budget": compared.first_bad_layer,
        "broken": broken,
    }


def plan_record(plan: "ExportPlan") -> dict[str, Any]:
    """Return the estimates of export --plan, by the rules in estimates.py."""
    return {"estimate": True, **asdict(plan)}
