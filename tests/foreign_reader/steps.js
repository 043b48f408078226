// The step tables (BUNDLE.md, section 7): what each call of the UNet gets and what is made of its
// output, as factors that were computed by the original's samplers.

import { Refusal } from './refusal.js';
import { weighted } from './tensors.js';

const HISTORY = 5;
const COLUMNS = ['timestep', 'input_scale', 'p', 'q', 'a', 'b0', 'b1', 'b2', 'b3', 'b4', 'c', 'signal_scale', 'noise_scale'];

export class StepTables {
  // `index` is `steps` of the pipeline file, `bytes` the file that it names.
  constructor(index, bytes) {
    this.index = index;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  // The rows of a run of `steps` steps from row `start` on, and init_noise_sigma.
  read(name, steps, start = 0) {
    const { samplers, most_steps } = this.index;
    if (!Object.hasOwn(samplers, name)) throw new Refusal(`the sampler ${JSON.stringify(name)}`);
    const sampler = samplers[name];
    const stored = Number.isInteger(steps) && steps >= 1 && steps <= most_steps;
    if (!stored || !sampler.rows[steps - 1]) throw new Refusal(`${steps} steps with the sampler ${name}`);
    const first = sampler.rows.slice(0, steps - 1).reduce((sum, count) => sum + count, 0);
    const rows = [];
    for (let r = start; r < sampler.rows[steps - 1]; r++) {
      const restart = sampler.restarts[r - start];
      const holders = restart ? [restart, sampler] : [sampler];
      rows.push(Object.fromEntries(COLUMNS.map((column) => [column, this.#value(column, holders, first + r)])));
    }
    return { rows, initNoiseSigma: Math.fround(sampler.init_noise_sigma[steps - 1]) };
  }

  #value(name, holders, place) {
    for (const { constants, columns } of holders) {
      if (Object.hasOwn(constants, name)) return Math.fround(constants[name]);
      if (Object.hasOwn(columns, name)) return this.view.getFloat32(columns[name] + 4 * place, true);
    }
    throw new Error(`the step tables have no column ${name}`);
  }
}

// One row: the next latents, and the history with the row's m0 before the older ones.
export function advance(row, x, output, history, noise) {
  const length = x.length;
  const m0 = weighted([[row.p, x], [row.q, output]], length);
  const newest = [m0, ...history].slice(0, HISTORY);
  const terms = [[row.a, x]];
  for (let i = 0; i < HISTORY; i++) {
    if (row[`b${i}`] !== 0 && !newest[i]) throw new Error(`b${i} is not 0 where the history is shorter`);
    terms.push([row[`b${i}`], newest[i]]);
  }
  terms.push([row.c, noise]);
  return { x: weighted(terms, length), history: newest };
}
