// The program of a pipeline (BUNDLE.md, section 4): which graph gets what, and when. Nothing here knows a
// family of models: stages, calls and names of values come from the pipeline file.

import { resolve } from './graphs.js';
import { Refusal } from './refusal.js';
import { concat, cut, fromBytes, kindOf, sum, zeros } from './tensors.js';

const STAGES = ['encode_prompt', 'encode_image', 'denoise', 'decode', 'preview']; // in the order of running
const NEEDED = ['denoise', 'decode'];
const HOSTS = ['latents', 'scaled_latents', 'timestep', 'decoder_latents', 'picture', 'control_picture',
  'control_scale', 'mask', 'masked_picture', 'guidance', 'time_ids'];
const HALF_HOST = /^(tokens\/\d+|attention_mask\/\d+|time_ids)$/;

function one(list, value, what) {
  if (!list.includes(value)) throw new Refusal(`the ${what} ${JSON.stringify(value)}`);
}

// The names of values in an input of a call.
function names(input) {
  if (typeof input === 'string') return [input];
  if (input.constant) return [];
  if (!input.concat && !input.sum) throw new Refusal(`the input ${JSON.stringify(input)}`);
  return input.concat ?? input.sum;
}

export class Program {
  constructor(pipeline) {
    this.index = pipeline.program;
    this.graphs = pipeline.graphs;
    this.constants = new Map();
    this.stages = this.index.stages.filter(({ stage, required }) => required || STAGES.includes(stage));
    this.#check(pipeline.tokenizers.length);
    const encoding = this.stages.filter(({ stage }) => stage === 'encode_prompt').flatMap(({ calls }) => calls);
    this.encoded = encoding.flatMap(({ outputs }) => Object.values(outputs));
  }

  // Refuses what this reader does not know (section 2).
  #check(tokenizers) {
    const { guidance, absent_negative, draws } = this.index;
    one(['classifier_free', 'embedded', 'none'], guidance, 'guidance kind');
    one(['encode_empty', 'zeros'], absent_negative, 'absent_negative');
    for (const name of draws) one(['posterior', 'start', 'steps'], name, 'draw');
    for (const { stage } of this.stages) one(STAGES, stage, 'required stage');
    for (const name of NEEDED) one(this.stages.map(({ stage }) => stage), name, 'lack of the stage');
    const hosts = [...HOSTS];
    for (let n = 1; n <= tokenizers; n++) hosts.push(`tokens/${n}`, `attention_mask/${n}`);
    const known = [...hosts];
    for (const name of STAGES) {
      for (const { when, calls } of this.stages.filter(({ stage }) => stage === name)) {
        for (const host of when) one(hosts, host, 'host value');
        for (const call of calls) {
          one(Object.keys(this.graphs), call.graph, 'lack of the graph');
          for (const input of Object.values(call.inputs)) {
            for (const value of names(input)) one(known, value, 'host value');
            if (input.constant) kindOf(input.constant.dtype);
          }
          known.push(...Object.values(call.outputs));
        }
      }
    }
  }

  async readConstants(bundle) {
    for (const { constant } of this.stages.flatMap(({ calls }) => calls).flatMap(({ inputs }) => Object.values(inputs))) {
      if (constant) this.constants.set(constant.path, fromBytes(await bundle.read(constant.path), constant.dtype, constant.shape));
    }
  }

  // The first variant of a stage for which every host value in its `when` is there.
  variant(name, hosts) {
    const found = this.stages.find(({ stage, when }) => stage === name && when.every((host) => hosts.has(host)));
    if (!found) throw new Refusal(`${name} without the host values that its variants want`);
    return found;
  }

  // The value of a call's input, of the values that `get` knows by name.
  #input(input, get) {
    if (typeof input === 'string') return get(input);
    if (input.concat) return concat(input.concat.map(get), input.axis);
    if (input.sum) return sum(input.sum.map(get));
    return this.constants.get(input.constant.path);
  }

  // The calls of a stage. `loaded` holds the graphs; `halves` has for each half a function from a name to
  // its value. The answer has for each half a Map of the values that were made. A call of values
  // that the halves share is made once; with `stacked` the others too, with both halves along axis 0.
  async run(stage, loaded, halves, stacked = false) {
    const depends = this.#dependsOnHalf(stage);
    const made = halves.map(() => new Map());
    const gets = halves.map((get, half) => (name) => {
      const value = made[half].get(name) ?? get(name);
      if (!value) throw new Refusal(`${stage.stage} without the value ${name}`);
      return value;
    });
    for (const [i, { graph, inputs, outputs }] of stage.calls.entries()) {
      const { spec } = this.graphs[graph];
      const given = (get) => Object.fromEntries(spec.inputs.map(({ name }) => [name, this.#input(inputs[name], get)]));
      let results;
      if (!depends[i].length) {
        const result = await loaded[graph].run(given(gets[0]));
        results = halves.map(() => result);
      } else if (stacked) {
        const each = gets.map(given);
        const both = { ...each[0] };
        for (const { name, shape } of spec.inputs) {
          if (typeof shape[0] === 'string') both[name] = concat(each.map((one) => one[name]), 0);
        }
        const result = Object.entries(await loaded[graph].run(both)).map(([name, value]) => [name, cut(value, halves.length)]);
        results = halves.map((_, half) => Object.fromEntries(result.map(([name, parts]) => [name, parts[half]])));
      } else {
        results = [];
        for (const get of gets) results.push(await loaded[graph].run(given(get)));
      }
      for (const [name, value] of Object.entries(outputs)) {
        results.forEach((result, half) => made[half].set(value, result[name]));
      }
    }
    return made;
  }

  // For each call of the stage, the inputs that depend on the half.
  #dependsOnHalf({ calls }) {
    const dependent = new Set(this.encoded);
    return calls.map(({ inputs, outputs }) => {
      const depends = (input) => names(input).some((name) => dependent.has(name) || HALF_HOST.test(name));
      const found = Object.keys(inputs).filter((name) => depends(inputs[name]));
      if (found.length) for (const value of Object.values(outputs)) dependent.add(value);
      return found;
    });
  }

  // Whether both halves may be given to every graph of the stage in one call.
  canStack(stage) {
    const depends = this.#dependsOnHalf(stage);
    const free = (graph, name) => typeof this.graphs[graph].spec.inputs.find((input) => input.name === name).shape[0] === 'string';
    return stage.calls.every(({ graph }, i) => depends[i].every((name) => free(graph, name)));
  }

  // The values that encode_prompt would make, as zeros of their shapes.
  zeros({ calls }) {
    const values = new Map();
    for (const { graph, outputs } of calls) {
      for (const { name, shape, dtype } of this.graphs[graph].spec.outputs) {
        if (outputs[name]) values.set(outputs[name], zeros(dtype, resolve(shape, {})));
      }
    }
    return values;
  }
}

// negative + g * (positive - negative), each rounded to float32.
export function guide(negative, positive, guidance) {
  const g = Math.fround(guidance);
  return negative.map((n, i) => n + Math.fround(g * Math.fround(positive[i] - n)));
}
