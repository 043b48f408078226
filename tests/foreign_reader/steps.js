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

  sampler(name) {
    if (!Object.hasOwn(this.index.samplers, name)) throw new Refusal(`the sampler ${JSON.stringify(name)}`);
    return this.index.samplers[name];
  }

  #count(sampler, steps) {
    return steps === 1 ? 1 : steps + sampler.extra_rows;
  }

  #float(offset, place) {
    return this.view.getFloat32(offset + 4 * place, true);
  }

  // The rows of `steps` steps from row `start` on, and init_noise_sigma.
  read(name, steps, start = 0) {
    const sampler = this.sampler(name);
    if (!Number.isInteger(steps) || steps < 1 || steps > this.index.max_steps) throw new Refusal(`${steps} steps`);
    const count = this.#count(sampler, steps);
    let before = 0; // rows of the tables of fewer steps
    for (let n = 1; n < steps; n++) before += this.#count(sampler, n);
    const value = (column, place) => (typeof column === 'number' ? Math.fround(column) : this.#float(column.offset, place));
    const rows = [];
    for (let i = start; i < count; i++) {
      rows.push(Object.fromEntries(COLUMNS.map((name) => [name, value(sampler.columns[name], before + i)])));
    }
    if (sampler.restart) this.#restart(sampler, steps, start, rows);
    return { rows, initNoiseSigma: value(sampler.init_noise_sigma, steps - 1) };
  }

  #restart({ restart, ...sampler }, steps, start, rows) {
    let place = 0;
    for (let n = 1; n <= steps; n++) {
      const count = this.#count(sampler, n);
      for (let s = 0; s < (n === steps ? start : count); s++) {
        restart.columns.forEach((names, k) => (place += s + k < count ? names.length : 0));
      }
    }
    restart.columns.slice(0, rows.length).forEach((names, k) => {
      for (let i = 0; i < HISTORY; i++) rows[k][`b${i}`] = 0;
      for (const name of names) rows[k][name] = this.#float(restart.offset, place++);
    });
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
