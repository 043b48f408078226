// A bundle in a folder, for Node: the `source` of bundle.js. Graphs are opened by their paths, so that
// ONNX Runtime maps the weights by itself.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import * as ort from 'onnxruntime-node';

import { openReader } from './reader.js';

export function folder(root) {
  async function list(below = '') {
    const found = [];
    for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
      const path = below ? `${below}/${entry.name}` : entry.name;
      if (entry.isDirectory()) found.push(...(await list(path)));
      else found.push({ path, link: entry.isSymbolicLink() });
    }
    return found;
  }
  return {
    list,
    // A path through a link is refused; the manifest's paths themselves hold no `..` (bundle.js).
    async size(path) {
      let stat;
      for (let at = root, parts = path.split('/'); parts.length; ) {
        at = join(at, parts.shift());
        stat = await lstat(at);
        if (stat.isSymbolicLink()) throw new Error(`${path} is a link, or behind one`);
      }
      return stat.size;
    },
    async read(path) {
      await this.size(path);
      return new Uint8Array(await readFile(join(root, path)));
    },
    async sha256(path) {
      const hash = createHash('sha256');
      for await (const part of createReadStream(join(root, path))) hash.update(part);
      return hash.digest('hex');
    },
    engineFile: (path) => join(root, path),
  };
}

export function openFolder(root) {
  const engineOptions = { executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 3 };
  return openReader(folder(root), ort, { engineOptions });
}
