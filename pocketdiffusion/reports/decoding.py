"""How a bundle decodes pictures: in one piece, in stripes inside the graph, or in tiles that its reader blends."""

from pocketdiffusion.export.targets import STRIPED
from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest
from pocketdiffusion.runtime.bundle.tiling import find_tiling

UNDIVIDED, STRIPES, BLENDED = "one piece", "stripes", "blended tiles"


def decoding_of(manifest: UnsealedManifest) -> str:
    """Return UNDIVIDED, STRIPES or BLENDED."""
    if find_tiling(manifest.latents, manifest.vae) is not None:
        return BLENDED
    graphs = (graph for graphs in manifest.graphs.values() for graph in graphs.values())
    return STRIPES if any(graph.rewrites.get(STRIPED) for graph in graphs) else UNDIVIDED


def describe_decoding(manifest: UnsealedManifest) -> str:
    """Return a sentence without a full stop."""
    tiling = find_tiling(manifest.latents, manifest.vae)
    if tiling is None and decoding_of(manifest) == STRIPES:
        return (
            "The VAE's decoder computes its largest levels in horizontal stripes, to save memory; the picture is the "
            f"one that it decodes in one piece (rewrite {STRIPED})"
        )
    if tiling is None:
        return "The VAE decodes a picture in one piece"
    height, width = (size * tiling.scale for size in tiling.shape)
    return (
        f"The VAE decodes a picture in {len(tiling.places)} tiles of {width}x{height} pixels, which the app blends "
        f"where they overlap, by {manifest.vae.tile_overlap} pixels or more. The original's pictures on this page are "
        "decoded in the same tiles; their distance from the pictures that it decodes in one piece is the check tiles, "
        "and seams compares edges at the borders of tiles with edges elsewhere"
    )
