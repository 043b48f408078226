"""Decode latents in tiles and blend the tiles where they overlap (docs/BUNDLE.md, section 10).

A bundle whose manifest has `vae.tile_size` has a decoder for tiles of one fixed size. Tiles are spread evenly, so that
the last one ends at the edge. Neighbours are blended linearly, as diffusers' AutoencoderKL.tiled_decode does in
principle: each tile is laid on a strip from the left, each strip on the picture from the top. Where a tile overlaps
what is there already, its weight grows from 0 to 1; all arithmetic is in float32, in one order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pocketdiffusion.runtime.runner import Array


@dataclass(frozen=True)
class Tiling:
    """How latents of `height` x `width` are decoded: in tiles of at most `tile` latents on each axis, of which
    neighbours share `overlap` latents or more. The decoder makes `scale` pixels of a latent on each axis."""

    height: int
    width: int
    scale: int
    tile: int
    overlap: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return the height and width of a tile, in latents."""
        return min(self.tile, self.height), min(self.tile, self.width)

    @property
    def rows(self) -> tuple[int, ...]:
        """Return the first row of each row of tiles, in latents."""
        return tile_starts(self.height, self.tile, self.overlap)

    @property
    def columns(self) -> tuple[int, ...]:
        """Return the first column of each column of tiles, in latents."""
        return tile_starts(self.width, self.tile, self.overlap)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return the first row and column of each tile, in latents, in the order of decoding."""
        return [(row, column) for row in self.rows for column in self.columns]


def tile_starts(size: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Return where tiles begin along an axis of `size` latents: evenly, the last one ending at `size`, neighbours
    sharing `overlap` or more. A tile that is larger than the axis is one tile at 0."""
    if tile >= size:
        return (0,)
    last = -(-(size - tile) // (tile - overlap))
    return tuple(number * (size - tile) // last for number in range(last + 1))


def cut_tiles(tiling: Tiling, latents: Array) -> Iterator[Array]:
    """Yield each tile of the decoder's latents, float32 [1, c, h, w]."""
    height, width = tiling.shape
    for row, column in tiling.places:
        yield np.ascontiguousarray(latents[:, :, row : row + height, column : column + width])


def cut_decoded(tiling: Tiling, decoded: Array) -> Iterator[Array]:
    """Yield each tile of a decoded picture, float32 [1, 3, H, W]: `blend_tiles` makes the same picture of them."""
    scale = tiling.scale
    height, width = tiling.shape[0] * scale, tiling.shape[1] * scale
    for row, column in tiling.places:
        top, left = row * scale, column * scale
        yield np.ascontiguousarray(decoded[:, :, top : top + height, left : left + width])


def blend_tiles(tiling: Tiling, tiles: Iterable[Array]) -> Array:
    """Return the decoded picture, float32 [1, 3, H, W], of the decoded tiles, float32 [1, 3, h, w], in the order of
    `Tiling.places`. They are read one by one, so that one row of tiles is in memory at most."""
    height, width = tiling.shape
    given = iter(tiles)
    strips = (
        _lay_all(islice(given, len(tiling.columns)), tiling.columns, width, tiling.width, tiling.scale, axis=3)
        for _ in tiling.rows
    )
    return _lay_all(strips, tiling.rows, height, tiling.height, tiling.scale, axis=2)


def _lay_all(pieces: Iterable[Array], starts: tuple[int, ...], length: int, size: int, scale: int, axis: int) -> Array:
    """Return the array of `size` latents along `axis` on which pieces of `length` latents were laid at `starts`."""
    laid: Array | None = None
    for number, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        if laid is None:
            shape = [*piece.shape]
            shape[axis] = size * scale
            laid = np.zeros(shape, np.float32)
        shared = scale * (starts[number - 1] + length - start) if number else 0
        lay_over(np.moveaxis(laid, axis, -1)[..., scale * start :], np.moveaxis(piece, axis, -1), shared)
    assert laid is not None, "there is at least one tile"
    return laid


def lay_over(laid: Array, piece: Array, shared: int) -> None:
    """Write `piece` [..., n] into the first n columns of `laid`, of which `shared` columns are filled already: there
    the weight of `piece` grows linearly, (2 x + 1) / (2 shared) in column x."""
    weight = blend_weights(shared)
    laid[..., :shared] += weight * (piece[..., :shared] - laid[..., :shared])
    laid[..., shared : piece.shape[-1]] = piece[..., shared:]


def blend_weights(shared: int) -> Array:
    """Return the weights of a tile in the `shared` columns that it is blended in, float32 [shared], from 0 to 1."""
    return ((2 * np.arange(shared) + 1) / (2 * shared or 1)).astype(np.float32)
