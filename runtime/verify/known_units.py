"""Warnings about graphs that ship for a compute unit on which they are known to be bad."""

from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest

EVIDENCE = {
    "measured_here": "measured by this project",
    "published": "published",
    "reported_by_device": "reported by a phone",
    "none": "without evidence",
}


def warn_of_units(manifest: UnsealedManifest) -> list[str]:
    """Return a warning for each graph that ships for a unit on which it is known to be bad, with the evidence."""
    return [
        f"WARNING: the {format} graph {name} is known to fail or to compute wrong results on its compute unit, "
        f"{graph.compute_unit} ({EVIDENCE.get(known.evidence, known.evidence)}): {known.note}"
        for format, graphs in manifest.graphs.items()
        for name, graph in graphs.items()
        if (known := graph.units.get(graph.compute_unit)) is not None and known.status == "bad"
    ]
