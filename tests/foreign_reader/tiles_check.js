// Blends the decoded tiles of a file as tests/golden/tiles.json and compares with its pictures:  node tiles_check.js FILE
// Exits with 1 where a value differs.

import { readFile } from 'node:fs/promises';

import { printTable } from './table.js';
import { axisOf, decodeTiles } from './tiles.js';

const { cases } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const rows = [];
for (const { latents, scale, tile_size: size, tile_overlap: overlap, tiles, picture, ...told } of cases) {
  const axes = latents.map((n) => axisOf(n, size / scale, overlap / scale));
  const left = tiles.map((values) => Float32Array.from(values));
  const layout = { rows: axes[0], columns: axes[1], s: scale, channels: 1 };
  const made = await decodeTiles(layout, new Float32Array(latents[0] * latents[1]), () => left.shift());
  const differ = made.filter((value, i) => value !== Math.fround(picture[i])).length;
  const lies = axes[0].starts.join() === told.rows.join() && axes[1].starts.join() === told.columns.join();
  const ok = lies && left.length === 0 && differ === 0 && made.length === picture.length;
  rows.push({ name: `latents ${latents.join(' x ')}`, ok, detail: `${differ} of ${picture.length} values differ` });
}
if (!printTable(process.argv[2], rows)) process.exitCode = 1;
