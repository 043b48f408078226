// Whether tiles are blended as tests/golden/tiles.json says, exactly:  node tiles_check.js tiles.json

import { readFileSync } from 'node:fs';

import { blendTiles, findTiling } from './tiles.js';

let [passed, failed] = [0, 0];
for (const golden of JSON.parse(readFileSync(process.argv[2])).cases) {
  const { latents: [height, width], scale, tile_size, tile_overlap } = golden;
  const tiling = findTiling({
    latents: { height, width, scale },
    vae: { tile_size, tile_overlap },
    picture: { width: width * scale, height: height * scale },
  });
  const tiles = golden.tiles.map((tile) => Float32Array.from(tile));
  const picture = await blendTiles(tiling, async () => tiles.shift());
  const same = (one, other) => one.length === other.length && one.every((value, i) => value === other[i]);
  const met = same(tiling.rows.starts, golden.rows) && same(tiling.columns.starts, golden.columns)
    && tiles.length === 0 && same([...picture], golden.picture.map(Math.fround));
  met ? passed++ : failed++;
  if (!met) console.log(`latents of ${height} x ${width} differ`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
