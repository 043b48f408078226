// Draws one picture with a bundle and writes it as raw RGB:
//   node draw.js BUNDLE --prompt TEXT --seed N --out FILE.rgb [--negative TEXT]
//     [--sampler NAME] [--steps N] [--guidance N] [--image FILE.rgb --strength N] [--stacked]
// The picture given with --image has the bundle's size already (see image.js for resizing).

import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { openFolder } from './node.js';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompt: text, negative: text, seed: text, steps: text, guidance: text, sampler: text, image: text,
    strength: text, out: text, stacked: { type: 'boolean' },
  },
});

const reader = await openFolder(positionals[0]);
if (!reader.bundle.manifest.proof.passed) console.error('warning: this bundle did not pass its proof');
const { prompt, negative, seed, sampler, stacked } = values;
const request = { prompt, negative, seed, stacked };
if (sampler) request.sampler = sampler;
for (const name of ['steps', 'guidance', 'strength']) if (values[name] !== undefined) request[name] = Number(values[name]);
if (values.image) request.rgb = new Uint8Array(await readFile(values.image));
request.onRow = (i, count) => process.stderr.write(`\r${i + 1}/${count} `);
const { rgb, width, height, finite, cut } = await reader.draw(request);
await writeFile(values.out, rgb);
process.stderr.write('\n');
cut.forEach((text) => text && console.error(`there was no room for: ${text}`));
if (!finite) console.error('warning: the decoded picture holds numbers that are not finite');
console.log(`${values.out}: ${width} x ${height}`);
