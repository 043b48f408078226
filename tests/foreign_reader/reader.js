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
import { convert, sizeOf, tensor, weighted } from './tensors.js';
import { ClipTokenizer } from './tokenizer.js';

export async function openReader(source, ort, { format = 'onnx', engineOptions } = {}) {
  const bundle = await openBundle(source);
  const pipeline = await bundle.pipeline(format);
  checkTokenizers(pipeline.tokenizers);
  checkDtypes(pipeline.graphs);
  const reader = new Reader();
  Object.assign(reader, { bundle, pipeline, engine: new Engine(ort, bundle, engineOptions) });
  reader.program = new Program(pipeline);
  await reader.program.readConstants(bundle);
  reader.tables = new StepTables(pipeline.steps, await bundle.read(pipeline.steps.file));
  reader.tokenizers = await Promise.all(pipeline.tokenizers.map((index) => openTokenizer(bundle, index)));
  return reader;
}

export async function openTokenizer(bundle, index) {
  const [vocabulary, characters] = [await bundle.json(index.vocabulary), await bundle.json(index.characters)];
  return new ClipTokenizer(index, vocabulary, await bundle.text(index.merges), characters);
}

// Where image to image starts: the number of rows that are left out (section 9).
export function startOf(steps, strength) {
  const start = steps - Math.min(Math.floor(steps * strength), steps);
  if (start >= steps) throw new Refusal(`a strength of ${strength}, which leaves none of ${steps} steps`);
  return start;
}

// One draw of image latents of the posterior's mean and log variance.
export function samplePosterior(posterior, noise) {
  const half = posterior.data.length / 2;
  const z = new Float32Array(half);
  for (let i = 0; i < half; i++) {
    const log = Math.min(Math.max(posterior.data[half + i], -30), 20);
    const deviation = Math.fround(Math.exp(Math.fround(0.5 * log)));
    z[i] = posterior.data[i] + Math.fround(deviation * noise[i]);
  }
  return z;
}

export class Reader {
  // The graphs of a stage, for as long as `work` runs.
  async #with(stage, work) {
    const loaded = {};
    try {
      for (const name of this.program.graphsOf(stage)) loaded[name] = await this.engine.load(this.pipeline.graphs[name]);
      return await work(loaded);
    } finally {
      for (const graph of Object.values(loaded)) await graph.release();
    }
  }

  // `rgb` is the picture of image to image: rows of RGB in the bundle's size. `hosts` holds further
  // host values by name (control_picture, ...). `stacked` runs both halves in one call where it may.
  async draw(request) {
    const { pipeline, program } = this;
    const { prompt, negative = null, seed, sampler, rgb = null, hosts = {}, stacked = false, onRow = () => {} } = request;
    const { steps, guidance, strength } = { ...pipeline.defaults, ...request };
    const { width, height } = pipeline.picture;
    const { channels, height: h, width: w } = pipeline.latents;
    const shape = [1, channels, h, w];
    const length = sizeOf(shape);

    const values = new Map(Object.entries(hosts));
    if (rgb && rgb.length !== width * height * 3) throw new Error(`the picture has to be ${width} x ${height}`);
    if (rgb) values.set('picture', tensor('float32', [1, 3, height, width], pictureToNumbers(rgb)));
    values.set('time_ids', tensor('float32', [1, 6], Float32Array.of(height, width, 0, 0, height, width)));
    if (program.index.guidance === 'embedded') values.set('guidance', tensor('float32', [1], Float32Array.of(guidance)));
    const there = new Set([...values.keys(), 'latents', 'scaled_latents', 'timestep', 'decoder_latents']);
    this.tokenizers.forEach((_, i) => there.add(`tokens/${i + 1}`).add(`attention_mask/${i + 1}`));
    const variant = (name) => {
      const stage = program.variant(name, there);
      if (!stage) throw new Refusal(`${name} without host values that all its variants want`);
      return stage;
    };

    const start = rgb ? startOf(steps, strength) : 0;
    const { rows, initNoiseSigma } = this.tables.read(sampler, steps, start);
    const encodeImage = rgb && variant('encode_image');
    const noise = this.#draws(seed, length, rows, encodeImage);

    // The prompts, one Map of values for each half.
    const prompts = [prompt];
    if (program.index.guidance === 'classifier_free' && guidance > 1) prompts.unshift(negative);
    const encodePrompt = variant('encode_prompt');
    const inputs = prompts.map((text) => this.tokenizers.map((tokenizer) => tokenizer.input(text ?? '')));
    const halves = await this.#with(encodePrompt, async (loaded) => {
      const made = [];
      for (const [i, text] of prompts.entries()) {
        const half = new Map();
        inputs[i].forEach(({ ids, mask }, n) => {
          half.set(`tokens/${n + 1}`, tensor('int32', [1, ids.length], ids));
          half.set(`attention_mask/${n + 1}`, tensor('int32', [1, mask.length], mask));
        });
        const empty = text === null && program.index.absent_negative === 'zeros';
        const get = (name) => half.get(name) ?? values.get(name);
        const more = empty ? program.zeros(encodePrompt) : await program.run(encodePrompt, loaded, get);
        made.push(new Map([...half, ...more]));
      }
      return made;
    });

    let x;
    if (rgb) {
      const made = await this.#with(encodeImage, (loaded) => program.run(encodeImage, loaded, (name) => values.get(name)));
      const latents = made.has('image_latents') ? made.get('image_latents').data : samplePosterior(made.get('posterior'), noise.posterior);
      x = imageStart(latents, noise.start, rows[0], pipeline.vae);
    } else {
      x = weighted([[initNoiseSigma, noise.start]], length);
    }

    const denoise = variant('denoise');
    const stack = stacked && halves.length > 1 && program.canStack(denoise);
    x = await this.#with(denoise, async (loaded) => {
      let history = [];
      for (const [i, row] of rows.entries()) {
        values.set('latents', tensor('float32', shape, x));
        values.set('scaled_latents', tensor('float32', shape, weighted([[row.input_scale, x]], length)));
        values.set('timestep', tensor('float32', [1], Float32Array.of(row.timestep)));
        const gets = halves.map((half) => (name) => half.get(name) ?? values.get(name));
        const outputs = [];
        const unused = i === rows.length - 1 && [0, 1, 2, 3, 4].every((k) => row[`b${k}`] === 0);
        if (unused) outputs.push(new Map([['model_output', values.get('latents')]])); // no part of x
        else if (stack) outputs.push(...(await program.runStacked(denoise, loaded, gets)));
        else for (const get of gets) outputs.push(await program.run(denoise, loaded, get));
        const predictions = outputs.map((made) => convert(made.get('model_output'), 'float32'));
        const output = predictions.length > 1 ? guide(...predictions, guidance) : predictions[0];
        ({ x, history } = advance(row, x, output.data, history, noise.steps[i]));
        await onRow(i, rows.length, x);
      }
      return x;
    });

    const { scaling_factor, shift_factor } = pipeline.vae;
    const divided = x.map((value) => value / Math.fround(scaling_factor));
    values.set('decoder_latents', tensor('float32', shape, divided.map((value) => value + Math.fround(shift_factor ?? 0))));
    const decode = variant('decode');
    const made = await this.#with(decode, (loaded) => program.run(decode, loaded, (name) => values.get(name)));
    const cut = inputs.map((half) => half.map((input) => input.cut));
    return { width, height, latents: x, cut, ...numbersToPicture(convert(made.get('decoded'), 'float32').data) };
  }

  // All noise of one picture, drawn in the program's order.
  #draws(seed, length, rows, encodeImage) {
    const generator = new Generator(seed);
    const noise = {};
    for (const name of this.program.index.draws) {
      if (name === 'start') noise.start = generator.normal(length);
      if (name === 'steps') noise.steps = rows.map((row) => (row.c === 0 ? null : generator.normal(length)));
      const asked = encodeImage?.calls.some((call) => Object.values(call.outputs).includes('posterior'));
      if (name === 'posterior' && asked) noise.posterior = generator.normal(length);
    }
    return noise;
  }
}

// Section 9, steps 4 and 6: the latents at the first row that is run.
export function imageStart(z, noise, row, { scaling_factor, shift_factor }) {
  const scale = Math.fround(scaling_factor);
  const shifted = z.map((value) => value - Math.fround(shift_factor ?? 0));
  return weighted([[row.signal_scale, shifted.map((value) => value * scale)], [row.noise_scale, noise]], z.length);
}
