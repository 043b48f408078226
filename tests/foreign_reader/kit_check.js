// Draws the requests of a kit and compares with its pictures:  node kit_check.js KIT [DB]
// A kit is a folder with bundles, `requests.json` ({photo, draw: [{bundle, prompt, negative_prompt, seed,
// steps, guidance, sampler, strength, picture}]}; null stands for what is not given, and with a
// strength the photo is redrawn) and the pictures. Exits with 1 where one is below DB (60).

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { readPng, resize } from './image.js';
import { openFolder } from './node.js';
import { printTable } from './table.js';
import { psnr } from './tensors.js';

const FLOOR = Number(process.argv[3] ?? 60); // dB
const kit = process.argv[2];
const requests = JSON.parse(await readFile(join(kit, 'requests.json'), 'utf8'));
const png = async (path) => readPng(new Uint8Array(await readFile(join(kit, path))));
const photo = await png(requests.photo);
const readers = new Map();
const rows = [];
for (const { bundle, picture, negative_prompt: negative, ...told } of requests.draw) {
  if (!readers.has(bundle)) readers.set(bundle, await openFolder(join(kit, bundle)));
  const reader = readers.get(bundle);
  const request = { negative };
  for (const [name, value] of Object.entries(told)) if (value !== null) request[name] = value;
  if (told.strength !== null) {
    const { width, height } = reader.pipeline.picture;
    request.rgb = resize(photo.rgb, photo.width, photo.height, width, height);
  }
  const expected = await png(picture);
  for (const stacked of [false, true]) {
    const row = { name: `${picture}${stacked ? ', stacked' : ''}`, ok: false };
    rows.push(row);
    try {
      const { rgb } = await reader.draw({ ...request, stacked });
      const db = psnr(expected.rgb, rgb, 255);
      const differ = rgb.filter((level, i) => level !== expected.rgb[i]).length;
      Object.assign(row, { ok: db >= FLOOR, detail: `${db.toFixed(1)} dB, ${differ} of ${rgb.length} levels differ` });
    } catch (error) {
      row.detail = error.message;
    }
  }
}
if (!printTable(kit, rows)) process.exitCode = 1;
