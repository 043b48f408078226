// How a reader proves itself (BUNDLE.md, sections 11 and 12): vectors that the original libraries computed,
// one recorded call of each graph, and one picture. The answers are rows {name, ok, detail}.

import { sha256 } from './bundle.js';
import { numbersToPicture, pictureToNumbers, readPng } from './image.js';
import { Generator } from './noise.js';
import { guide } from './program.js';
import { decoderLatents, firstLatents, runRows, samplePosterior, scaleEncoded } from './reader.js';
import { convert, fromBytes, kindOf, psnr, sizeOf, weighted } from './tensors.js';
import { BYTE } from './tokenizer.js';

const EQUAL = 200; // dB
const FAILED = { ok: false, db: -Infinity };
const ROWS = ['start', 'run']; // kinds whose arrays have a row for each of several runs, judged one by one

export async function check(reader) {
  return [...(await checkVectors(reader)), ...(await checkGraphs(reader)), ...(await checkPicture(reader))];
}

// What a reader makes of one case, by the vector's kind: arrays by the names of `expected`.
const KINDS = {
  tokens({ texts, numbers }, reader) {
    const { ids, mask, cut } = reader.tokenizers[(numbers.tokenizer ?? 1) - 1].input(texts.prompt);
    return { ids, mask, cut: new TextEncoder().encode(cut) };
  },

  async vocabulary({ numbers }, reader) {
    const tokenizer = reader.tokenizers[(numbers.tokenizer ?? 1) - 1];
    const entries = [...tokenizer.vocabulary].sort((a, b) => a[1] - b[1]);
    const byteOf = new Map(BYTE.map((character, byte) => [character, byte]));
    const ids = [];
    for (const [token] of entries) {
      const bytes = Array.from(token.replace(/<\/w>$/, ''), (character) => byteOf.get(character));
      if (bytes.includes(undefined)) continue; // characters that stand for no byte
      let text;
      try {
        text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
      } catch {
        continue; // not UTF-8
      }
      ids.push(...tokenizer.ids(text), -1);
    }
    const lines = (list) => new TextEncoder().encode(list.map((line) => `${line}\n`).join(''));
    const digest = async (bytes) => Uint8Array.from((await sha256(bytes)).match(/../g), (two) => parseInt(two, 16));
    return {
      vocabulary: await digest(lines(entries.map(([token, id]) => `${token} ${id}`))),
      merges: await digest(lines([...tokenizer.ranks.keys()])),
      entries: await digest(new Uint8Array(Int32Array.from(ids).buffer)),
    };
  },

  noise({ texts, arrays }) {
    const generator = new Generator(texts.seed);
    const draws = Array.from(arrays.sizes, (size) => generator.normal(size));
    return { values: Float32Array.from(arrays.draw, (draw, i) => draws[draw][arrays.at[i]]) };
  },

  start({ texts, arrays }, reader) {
    const each = Array.from(arrays.steps, (steps, i) =>
      firstLatents(reader.tables.read(texts.sampler, steps, arrays.starts[i]), arrays.noise, arrays.image));
    return { latents: flat(each) };
  },

  async run(given, reader) {
    const [each, means] = [[], []];
    for (let i = 0; i < given.arrays.steps.length; i++) {
      const { x, latents } = await run(given, reader, i);
      each.push(x);
      means.push(x.map((_, j) => latents.reduce((sum, row) => sum + row[j], 0) / latents.length)); // in float64
    }
    return { latents: flat(each), means: flat(means) };
  },

  async whole_run(given, reader) {
    const { timesteps, scaled, latents } = await run(given, reader, 0);
    return { timesteps: Float32Array.from(timesteps), scaled: flat(scaled), latents: flat(latents) };
  },

  guidance({ numbers, arrays }) {
    const { negative, positive } = arrays;
    return { output: numbers.guidance > 1 ? guide(negative, positive, numbers.guidance) : positive };
  },

  decoder_scale: ({ arrays }, { pipeline }) => ({ decoder_latents: decoderLatents(arrays.latents, pipeline.vae) }),
  posterior: ({ arrays }, { pipeline }) => ({ latents: scaleEncoded(samplePosterior(arrays.parameters, arrays.noise), pipeline.vae) }),
  picture_to_array: ({ arrays }) => ({ array: pictureToNumbers(arrays.picture) }),
  array_to_picture: ({ arrays }) => ({ picture: numbersToPicture(arrays.array).rgb }),
};

const flat = (arrays) => Float32Array.from(arrays.flatMap((array) => [...array]));

// One run of a vector: the model is an arithmetic with the recorded outputs.
async function run({ texts, arrays }, reader, i) {
  const width = 16;
  const piece = (array, r) => array.subarray(r * width, (r + 1) * width);
  const table = reader.tables.read(texts.sampler, arrays.steps[i], arrays.starts[i]);
  const seen = { timesteps: [], scaled: [], latents: [] };
  const predict = (row, scaled, x, r) => {
    seen.timesteps.push(row.timestep);
    seen.scaled.push(scaled);
    const output = weighted([[1, piece(arrays.outputs, r)], [0.25, scaled]], width);
    return output.map((value) => value + Math.fround(row.timestep / 1000));
  };
  const noises = table.rows.map((_, r) => piece(arrays.noise, r + 1));
  const first = firstLatents(table, piece(arrays.noise, 0), arrays.image);
  const x = await runRows(table.rows, first, noises, predict, (r, count, now) => seen.latents.push(now));
  return { ...seen, x };
}

export async function checkVectors(reader) {
  const paths = reader.bundle.manifest.conformance;
  if (!paths.length) return [];
  const { vectors } = await reader.bundle.json(paths.find((path) => path.endsWith('.json')));
  const bytes = await reader.bundle.read(paths.find((path) => path.endsWith('.bin')));
  const array = ({ offset, dtype, shape }) => {
    const length = sizeOf(shape) * kindOf(dtype).BYTES_PER_ELEMENT;
    return fromBytes(bytes.subarray(offset, offset + length), dtype, shape).data;
  };
  const arrays = (told) => Object.fromEntries(Object.entries(told).map(([name, one]) => [name, array(one)]));
  const rows = [];
  for (const { name, kind, tells, floor_db, cases } of vectors) {
    const row = { name, ok: true, detail: '' };
    rows.push(row);
    if (!Object.hasOwn(KINDS, kind)) {
      Object.assign(row, { ok: false, detail: `this reader is too old for the kind ${kind}` });
      continue;
    }
    const all = cases.map((one) => ({ ...one, arrays: arrays(one.arrays), expected: arrays(one.expected) }));
    let least = Infinity;
    for (const one of all) {
      try {
        const made = await KINDS[kind](one, reader);
        for (const [part, expected] of Object.entries(one.expected)) {
          const whole = expected.length === made[part].length && expected.constructor === made[part].constructor;
          const size = ROWS.includes(kind) ? expected.length / one.arrays.steps.length : Math.max(expected.length, 1);
          for (let at = 0; at < Math.max(expected.length, 1); at += size) {
            const [wanted, found] = [expected, made[part]].map((array) => array.subarray(at, at + size));
            const { ok, db } = whole ? compare(wanted, found, floor_db) : FAILED;
            least = Math.min(least, db);
            if (!ok) Object.assign(row, { ok, detail: `${one.label}, ${part}: ${told(db)}; ${tells}` });
          }
        }
      } catch (error) {
        Object.assign(row, { ok: false, detail: `${one.label}: ${error.message}` });
      }
    }
    row.detail ||= `${told(least)}, floor ${floor_db} dB, ${cases.length} cases`;
  }
  return rows;
}

const told = (db) => (db === Infinity ? 'equal' : `${db.toFixed(1)} dB`);

// Two arrays of one length, beside the largest expected value (1 where that is 0).
function compare(expected, made, floor) {
  let [worst, peak] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(expected[i] - made[i]));
    peak = Math.max(peak, Math.abs(expected[i]));
  }
  peak ||= 1;
  if (worst === 0) return { ok: made.every(Number.isFinite), db: Infinity };
  const db = psnr(expected, made, peak);
  return { ok: floor < EQUAL && db >= floor && worst <= 10 * peak * 10 ** (-floor / 20), db };
}

// The floor of a graph's outputs in dB.
function floorOf({ floor_db, storage, arithmetic }) {
  if (floor_db !== null) return floor_db;
  if (arithmetic === 'float16') return 58;
  return storage === 'float16' ? 65 : 105;
}

export async function checkGraphs(reader) {
  const rows = [];
  for (const [name, golden] of Object.entries(reader.bundle.manifest.golden)) {
    const index = reader.pipeline.graphs[name];
    if (!index) continue; // of another format
    const read = async ({ path, dtype, shape }) => fromBytes(await reader.bundle.read(path), dtype, shape);
    const inputs = {};
    for (const [input, array] of Object.entries(golden.inputs)) inputs[input] = await read(array);
    const graph = await reader.engine.load(index);
    const outputs = await graph.run(inputs);
    await graph.release();
    for (const [output, array] of Object.entries(golden.outputs)) {
      const [expected, made] = [await read(array), outputs[output]].map((one) => convert(one, 'float32').data);
      const db = psnr(expected, made);
      rows.push({ name: `${name}, ${output}`, ok: db >= floorOf(index), detail: `${told(db)}, floor ${floorOf(index)} dB` });
    }
  }
  return rows;
}

export async function checkPicture(reader) {
  const { picture } = reader.bundle.manifest;
  if (!picture) return [];
  const graphs = Object.values(reader.pipeline.graphs);
  const floor = Math.min(...graphs.map(({ picture_floors_db: own, storage, arithmetic }) =>
    own?.[1] ?? ([storage, arithmetic].includes('float16') ? 25 : 50)));
  const { negative_prompt: negative, image, ...request } = picture;
  const original = await readPng(await reader.bundle.read(image));
  const rows = [];
  for (const stacked of [false, true]) {
    const { rgb } = await reader.draw({ ...request, negative, stacked });
    const db = psnr(original.rgb, rgb, 255);
    const levels = rgb.filter((level, i) => level !== original.rgb[i]).length;
    const name = `picture, ${stacked ? 'halves in one call' : 'halves one by one'}`;
    rows.push({ name, ok: db >= floor, detail: `${told(db)}, floor ${floor} dB, ${levels} of ${rgb.length} levels differ, sha256 ${await sha256(rgb)}` });
  }
  return rows;
}
