// Drawing a picture with a bundle: the parts of the other files in their order (BUNDLE.md, sections 3 to 10).
//
//   const reader = await openReader(source, ort);
//   const { rgb, width, height } = await reader.draw({ prompt: 'a fox', seed: '7', sampler: 'ddim' });

import { openBundle } from './bundle.js';
import { checkDtypes, checkTokenizers, Engine } from './graphs.js';
import { numbersToPicture, pictureToNumbers } from './image.js';
import { Generator } from './noise.js';
import { guide, Program } from './program.js';
import { Refusal } from './refusal.js';
import { advance, StepTables } from './steps.js';
import { tensor, weighted } from './tensors.js';
import { decodeTiles, tilesOf } from './tiles.js';
import { ClipTokenizer } from './tokenizer.js';

export async function openReader(source, ort, { format = 'onnx', engineOptions } = {}) {
  const bundle = await openBundle(source);
  const pipeline = await bundle.pipeline(format);
  checkTokenizers(pipeline.tokenizers);
  checkDtypes(pipeline.graphs);
  const reader = new Reader();
  Object.assign(reader, { bundle, pipeline, engine: new Engine(ort, bundle, engineOptions) });
  reader.program = new Program(pipeline);
  reader.tiles = tilesOf(pipeline);
  await reader.program.readConstants(bundle);
  reader.tables = new StepTables(pipeline.steps, await bundle.read(pipeline.steps.file));
  reader.tokenizers = await Promise.all(pipeline.tokenizers.map((index) => openTokenizer(bundle, index)));
  return reader;
}

export async function openTokenizer(bundle, index) {
  const [vocabulary, characters] = [await bundle.json(index.vocab), await bundle.json(index.characters)];
  return new ClipTokenizer(index, vocabulary, await bundle.text(index.merges), characters);
}

// Where image to image starts: the number of rows that are left out (section 9).
export function startOf(steps, strength) {
  if (!(strength > 0 && strength <= 1)) throw new Refusal(`a strength of ${strength}: it is above 0 and at most 1`);
  const start = steps - Math.min(Math.floor(steps * strength), steps);
  if (start >= steps) throw new Refusal(`a strength of ${strength}, which leaves none of ${steps} steps`);
  return start;
}

// Section 9, step 3: image latents of the posterior's mean and log variance.
export function samplePosterior(parameters, noise) {
  const half = parameters.length / 2;
  const z = new Float32Array(half);
  for (let i = 0; i < half; i++) {
    const log = Math.min(Math.max(parameters[half + i], -30), 20);
    const deviation = Math.fround(Math.exp(Math.fround(0.5 * log)));
    z[i] = parameters[i] + Math.fround(deviation * noise[i]);
  }
  return z;
}

// Section 9, step 4.
export function scaleEncoded(z, { scaling_factor, shift_factor }) {
  const shifted = z.map((value) => value - Math.fround(shift_factor));
  return shifted.map((value) => value * Math.fround(scaling_factor));
}

export function decoderLatents(x, { scaling_factor, shift_factor }) {
  const divided = x.map((value) => value / Math.fround(scaling_factor));
  return divided.map((value) => value + Math.fround(shift_factor));
}

// The latents before the first row; `image` are the latents0 of image to image, or null.
export function firstLatents({ rows, initNoiseSigma }, noise, image) {
  const terms = image ? [[rows[0].signal_scale, image], [rows[0].noise_scale, noise]] : [[initNoiseSigma, noise]];
  return weighted(terms, noise.length);
}

// The rows of a run, from latents x: `predict(row, scaled, x, r)` answers with the UNet's output.
export async function runRows(rows, x, noises, predict, onRow = () => {}) {
  let history = [];
  for (const [r, row] of rows.entries()) {
    const output = await predict(row, weighted([[row.input_scale, x]], x.length), x, r);
    ({ x, history } = advance(row, x, output, history, noises[r]));
    await onRow(r, rows.length, x);
  }
  return x;
}

export class Reader {
  // The graphs of a stage, for as long as `work` runs.
  async #with(stage, work) {
    const loaded = {};
    try {
      for (const { graph } of stage.calls) loaded[graph] ??= await this.engine.load(this.pipeline.graphs[graph]);
      return await work(loaded);
    } finally {
      for (const graph of Object.values(loaded)) await graph.release();
    }
  }

  // `rgb` is the picture of image to image: rows of RGB in the bundle's size. `stacked` runs both
  // halves in one call where it may. What is left out is as `defaults` of the pipeline file says.
  async draw(request) {
    const { pipeline, program } = this;
    const { prompt, negative = null, seed, rgb = null, stacked = false, onRow } = request;
    const { steps, guidance, strength, sampler } = { ...pipeline.defaults, sampler: pipeline.steps.default_sampler, ...request };
    if (!Number.isFinite(guidance)) throw new Refusal(`a guidance of ${guidance}`);
    const { width, height } = pipeline.picture;
    const { channels, height: h, width: w } = pipeline.latents;
    const latents = (data) => tensor('float32', [1, channels, h, w], data);
    const numbers = (...data) => tensor('float32', [data.length], Float32Array.from(data));

    // Host values that all halves share; those of a half are made with its prompt.
    const values = new Map();
    const get = (name) => values.get(name);
    values.set('time_ids', tensor('float32', [1, 6], Float32Array.of(height, width, 0, 0, height, width)));
    if (program.index.guidance === 'embedded') values.set('guidance', numbers(guidance));
    if (rgb && rgb.length !== width * height * 3) throw new Error(`the picture has to be ${width} x ${height}`);
    if (rgb) values.set('picture', tensor('float32', [1, 3, height, width], pictureToNumbers(rgb)));
    const there = new Set([...values.keys(), 'latents', 'scaled_latents', 'timestep', 'decoder_latents']);
    this.tokenizers.forEach((_, i) => there.add(`tokens/${i + 1}`).add(`attention_mask/${i + 1}`));
    const [encodePrompt, denoise, decode] = ['encode_prompt', 'denoise', 'decode'].map((name) => program.variant(name, there));
    const encodeImage = rgb && program.variant('encode_image', there);

    const run = this.tables.read(sampler, steps, rgb ? startOf(steps, strength) : 0);
    const noise = this.#draws(seed, channels * h * w, run.rows, encodeImage);

    const prompts = [prompt];
    if (program.index.guidance === 'classifier_free' && guidance > 1) prompts.unshift(negative);
    const inputs = prompts.map((text) => this.tokenizers.map((tokenizer) => tokenizer.input(text ?? '')));
    const halves = await this.#with(encodePrompt, async (loaded) => {
      const encoded = [];
      for (const [i, text] of prompts.entries()) {
        const own = new Map();
        inputs[i].forEach(({ ids, mask }, n) => {
          own.set(`tokens/${n + 1}`, tensor('int32', [1, ids.length], ids));
          own.set(`attention_mask/${n + 1}`, tensor('int32', [1, mask.length], mask));
        });
        const absent = text === null && program.index.absent_negative === 'zeros';
        const [made] = absent ? [program.zeros(encodePrompt)] : await program.run(encodePrompt, loaded, [(name) => own.get(name) ?? get(name)]);
        encoded.push(new Map([...own, ...made]));
      }
      return encoded.map((own) => (name) => own.get(name) ?? get(name));
    });

    let image = null;
    if (rgb) {
      const [made] = await this.#with(encodeImage, (loaded) => program.run(encodeImage, loaded, [get]));
      const z = made.get('image_latents')?.data ?? samplePosterior(made.get('posterior').data, noise.posterior);
      image = scaleEncoded(z, pipeline.vae);
    }

    const stack = stacked && halves.length > 1 && program.canStack(denoise);
    const x = await this.#with(denoise, (loaded) => runRows(run.rows, firstLatents(run, noise.start, image), noise.steps, async (row, scaled, now, r) => {
      const unused = r === run.rows.length - 1 && [0, 1, 2, 3, 4].every((k) => row[`b${k}`] === 0);
      if (unused) return now; // the output is no part of the latents: the call is left out
      values.set('latents', latents(now));
      values.set('scaled_latents', latents(scaled));
      values.set('timestep', numbers(row.timestep));
      const outputs = (await program.run(denoise, loaded, halves, stack)).map((made) => made.get('model_output').data);
      return outputs.length > 1 ? guide(...outputs, guidance) : outputs[0];
    }, onRow));

    const all = decoderLatents(x, pipeline.vae);
    const decoded = await this.#with(decode, (loaded) => {
      const decodePart = async (data, shape) => {
        values.set('decoder_latents', tensor('float32', shape, data));
        return (await program.run(decode, loaded, [get]))[0].get('decoded').data;
      };
      return this.tiles ? decodeTiles(this.tiles, all, decodePart) : decodePart(all, [1, channels, h, w]);
    });
    const cut = inputs.flat().map((input) => input.cut);
    return { width, height, latents: x, cut, ...numbersToPicture(decoded) };
  }

  // All noise of one picture, drawn in the program's order.
  #draws(seed, length, rows, encodeImage) {
    const generator = new Generator(seed);
    const posterior = encodeImage?.calls.some(({ outputs }) => Object.values(outputs).includes('posterior'));
    const noise = {};
    for (const name of this.program.index.draws) {
      if (name === 'start') noise.start = generator.normal(length);
      if (name === 'steps') noise.steps = rows.map(({ c }) => (c === 0 ? null : generator.normal(length)));
      if (name === 'posterior' && posterior) noise.posterior = generator.normal(length);
    }
    return noise;
  }
}
