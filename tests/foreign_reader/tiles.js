// Decoding in tiles that are blended where they overlap (BUNDLE.md, section 10).

import { Refusal } from './refusal.js';

const COLOURS = 3;

// An axis of n latents in tiles: how long a tile is, and where each begins.
export function axisOf(n, tile, overlap) {
  const t = Math.min(tile, n);
  if (t === n) return { n, t, starts: [0] };
  const k = Math.ceil((n - t) / (t - overlap)) + 1;
  return { n, t, starts: Array.from({ length: k }, (_, i) => Math.floor((i * (n - t)) / (k - 1))) };
}

// The tiles of a pipeline: both axes and the pixels of a latent, or null where the picture is decoded as one.
export function tilesOf({ vae, latents, program, graphs }) {
  const [size, overlap, s] = [vae.tile_size ?? null, vae.tile_overlap ?? null, latents.scale];
  if (size === null && overlap === null) return null;
  const told = `a vae.tile_size of ${size} with an overlap of ${overlap}`;
  if (size === null || overlap === null || size % s || overlap % s || overlap < 0 || overlap >= size) throw new Refusal(told);
  if (size >= s * Math.max(latents.height, latents.width)) throw new Refusal(`${told}, of a picture that is no larger`);
  const [rows, columns] = [latents.height, latents.width].map((n) => axisOf(n, size / s, overlap / s));
  const tiles = { rows, columns, s, channels: latents.channels };
  const shapes = { decoder_latents: [latents.channels, rows.t, columns.t], decoded: [COLOURS, s * rows.t, s * columns.t] };
  for (const call of program.stages.filter(({ stage }) => stage === 'decode').flatMap(({ calls }) => calls)) {
    const { inputs, outputs } = graphs[call.graph].spec;
    for (const [names, tensors] of [[call.inputs, inputs], [call.outputs, outputs]]) {
      for (const { name, shape } of tensors) {
        const wanted = typeof names[name] === 'string' ? shapes[names[name]] : undefined;
        if (wanted && wanted.join() !== shape.slice(1).join()) throw new Refusal(`${told}, for which ${call.graph} is not made`);
      }
    }
  }
  return tiles;
}

// `decode(values, shape)` answers with the pixels of one tile, [1, 3, height, width]; the answer has those of all.
export async function decodeTiles({ rows, columns, s, channels }, latents, decode) {
  const [height, width] = [s * rows.t, s * columns.n];
  const picture = new Float32Array(COLOURS * s * rows.n * width);
  for (const [i, row] of rows.starts.entries()) {
    const strip = new Float32Array(COLOURS * height * width);
    for (const [j, column] of columns.starts.entries()) {
      const tile = new Float32Array(channels * rows.t * columns.t);
      for (let line = 0; line < channels * rows.t; line++) {
        const from = (Math.floor(line / rows.t) * rows.n + row + (line % rows.t)) * columns.n + column;
        tile.set(latents.subarray(from, from + columns.t), line * columns.t);
      }
      lay(await decode(tile, [1, channels, rows.t, columns.t]), strip, COLOURS * height, columns, j, s, 1);
    }
    lay(strip, picture, COLOURS, rows, i, s, width);
  }
  return picture;
}

// Lays a piece, [outer, length of a tile, inner], on what was laid before, [outer, length of the axis, inner].
function lay(piece, laid, outer, { n, t, starts }, number, s, inner) {
  const v = number ? s * (starts[number - 1] + t - starts[number]) : 0;
  for (let line = 0; line < outer * s * t; line++) {
    const x = line % (s * t);
    const to = (Math.floor(line / (s * t)) * s * n + s * starts[number] + x) * inner;
    const weight = x < v ? Math.fround((2 * x + 1) / (2 * v)) : 1;
    for (let k = 0; k < inner; k++) {
      const value = piece[line * inner + k];
      laid[to + k] = x < v ? laid[to + k] + Math.fround(weight * Math.fround(value - laid[to + k])) : value;
    }
  }
}
