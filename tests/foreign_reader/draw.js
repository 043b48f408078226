// Draws one picture with a bundle and writes it as raw RGB:
//   node draw.js BUNDLE --prompt TEXT --seed N --out FILE.rgb [--negative TEXT]
//     [--sampler NAME] [--steps N] [--guidance N] [--image FILE.rgb --strength N] [--stacked]
// The picture given with --image has the bundle's size already (see image.js for resizing).

import { readFile, writeFile } from 'node:fs/promises';

import { openFolder } from './node.js';

const NAMES = ['prompt', 'negative', 'seed', 'sampler', 'steps', 'guidance', 'image', 'strength', 'out'];
const [root, ...words] = process.argv.slice(2);
const values = {};
while (words.length) {
  const name = words.shift().replace(/^--/, '');
  if (name === 'stacked') values.stacked = true;
  else if (NAMES.includes(name) && words.length) values[name] = words.shift(); // may begin with -
  else throw new Error(`unknown option, or one without its value: ${name}`);
}
for (const name of ['prompt', 'seed', 'out']) if (values[name] === undefined) throw new Error(`--${name} is missing`);

const reader = await openFolder(root);
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
