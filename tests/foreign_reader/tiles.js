// Decoding in tiles, and blending them (BUNDLE.md, section 10).

import { Refusal } from './refusal.js';

// Where tiles begin along an axis of n latents.
export function tileStarts(n, tile, overlap) {
  const t = Math.min(tile, n);
  if (t === n) return [0];
  const last = Math.ceil((n - t) / (t - overlap));
  return Array.from({ length: last + 1 }, (_, i) => Math.floor((i * (n - t)) / last));
}

// Null where the decoder is given the complete latents.
export function findTiling({ latents, vae, picture }) {
  const { tile_size: size = null, tile_overlap: overlap = null } = vae;
  if (size === null && overlap === null) return null;
  const { scale } = latents;
  const whole = [size, overlap].every((pixels) => Number.isInteger(pixels) && pixels > 0 && pixels % scale === 0);
  if (!whole || overlap >= size || size >= Math.max(picture.width, picture.height)) {
    throw new Refusal(`a vae.tile_size of ${size} with a tile_overlap of ${overlap}`);
  }
  const axis = (n) => ({ n, tile: Math.min(size / scale, n), starts: tileStarts(n, size / scale, overlap / scale) });
  return { rows: axis(latents.height), columns: axis(latents.width), scale };
}

// The tile of latents [1, c, h, w] that begins at a row and a column.
export function cutTile(data, channels, { rows, columns }, top, left) {
  const found = new Float32Array(channels * rows.tile * columns.tile);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = top; y < top + rows.tile; y++) {
      const begin = (c * rows.n + y) * columns.n + left;
      found.set(data.subarray(begin, begin + columns.tile), at);
      at += columns.tile;
    }
  }
  return found;
}

function weightOf(x, shared) {
  return x < shared ? Math.fround((2 * x + 1) / (2 * shared)) : null;
}

function laid(before, value, weight) {
  return weight === null ? value : Math.fround(before + Math.fround(weight * Math.fround(value - before)));
}

// Pixels that the tile before has filled already.
function sharedOf({ starts, tile }, i, scale) {
  return i === 0 ? 0 : scale * (starts[i - 1] + tile - starts[i]);
}

// The picture [1, 3, H, W] of decoded tiles; `decode(top, left)` answers with one of them, [1, 3, h, w].
export async function blendTiles({ rows, columns, scale }, decode) {
  const [height, width] = [rows.n * scale, columns.n * scale];
  const [h, w] = [rows.tile * scale, columns.tile * scale];
  const picture = new Float32Array(3 * height * width);
  for (const [i, top] of rows.starts.entries()) {
    const strip = new Float32Array(3 * h * width);
    for (const [j, left] of columns.starts.entries()) {
      const tile = await decode(top, left);
      const shared = sharedOf(columns, j, scale);
      for (let line = 0; line < 3 * h; line++) {
        for (let x = 0; x < w; x++) {
          const at = line * width + left * scale + x;
          strip[at] = laid(strip[at], tile[line * w + x], weightOf(x, shared));
        }
      }
    }
    const shared = sharedOf(rows, i, scale);
    for (let c = 0; c < 3; c++) {
      for (let y = 0; y < h; y++) {
        const weight = weightOf(y, shared);
        for (let x = 0; x < width; x++) {
          const at = (c * height + top * scale + y) * width + x;
          picture[at] = laid(picture[at], strip[(c * h + y) * width + x], weight);
        }
      }
    }
  }
  return picture;
}
