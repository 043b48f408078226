// A bundle behind HTTP, for browsers: the `source` of bundle.js, and the checks of check.js with
// onnxruntime-web (WebAssembly, one thread). Models and their external data are given as bytes.

import * as ort from './node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs';

import { sha256 } from './bundle.js';
import { check } from './conformance.js';
import { openReader } from './reader.js';

export function site(root) {
  const held = new Map();
  async function read(path) {
    if (!held.has(path)) {
      const answer = await fetch(root + path);
      if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
      held.set(path, new Uint8Array(await answer.arrayBuffer()));
    }
    return held.get(path);
  }
  return {
    read,
    size: async (path) => (await read(path)).length,
    sha256: async (path) => sha256(await read(path)),
    engineFile: read,
    engineData: read,
  };
}

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL('node_modules/onnxruntime-web/dist/', import.meta.url).href;

const result = { agent: navigator.userAgent, rows: [] };
try {
  const reader = await openReader(site('/bundle/'), ort, { engineOptions: { executionProviders: ['wasm'] } });
  result.rows = await check(reader);
} catch (error) {
  result.error = String(error.stack ?? error);
}
document.getElementById('result').textContent = JSON.stringify(result, null, 1);
document.title = 'done';
