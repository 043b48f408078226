// The program of a pipeline (BUNDLE.md, section 4): which graph gets what, and when. Nothing here knows a
// family of models: stages, calls and names of values come from the pipeline file.

import { resolve } from './graphs.js';
import { Refusal } from './refusal.js';
import { concat, cut, fromBytes, kindOf, sum, tensor, zeros } from './tensors.js';

const STAGES = ['encode_prompt', 'encode_image', 'denoise', 'decode', 'preview'];
const NEEDED = ['encode_prompt', 'denoise', 'decode'];
const HOSTS = ['latents', 'scaled_latents', 'timestep', 'decoder_latents', 'picture', 'control_picture',
  'control_scale', 'mask', 'masked_picture', 'guidance', 'time_ids'];
const RESULTS = ['model_output', 'posterior', 'image_latents', 'decoded'];
const DRAWS = ['posterior', 'start', 'steps'];
const HALF_HOST = /^(tokens\/\d+|attention_mask\/\d+|time_ids)$/;

const one = (list, value, what) => {
  if (!list.includes(value)) throw new Refusal(`the ${what} ${JSON.stringify(value)}`);
};
const names = (input) => (typeof input === 'string' ? [input] : input.concat ?? input.sum ?? []);
const named = (calls) => calls.flatMap((call) => Object.values(call.inputs).flatMap(names));
const made = (calls) => calls.flatMap((call) => Object.values(call.outputs));

export class Program {
  constructor(pipeline) {
    this.index = pipeline.program;
    this.graphs = pipeline.graphs;
    this.constants = new Map();
    this.stages = this.index.stages.filter(({ stage, required }) => STAGES.includes(stage) || required);
    this.#check(pipeline.tokenizers.length);
    this.perHalf = new Set(made(this.stages.filter((s) => s.stage === 'encode_prompt').flatMap((s) => s.calls)));
  }

  #check(tokenizers) {
    const { guidance, absent_negative, draws } = this.index;
    one(['classifier_free', 'embedded', 'none'], guidance, 'guidance kind');
    if (guidance === 'classifier_free') one(['encode_empty', 'zeros'], absent_negative, 'absent_negative');
    for (const name of draws) one(DRAWS, name, 'draw');
    for (const { stage } of this.stages) one(STAGES, stage, 'required stage');
    for (const name of NEEDED) if (!this.stages.some(({ stage }) => stage === name)) throw new Refusal(`a program without ${name}`);
    const hosts = [...HOSTS];
    for (let n = 1; n <= tokenizers; n++) hosts.push(`tokens/${n}`, `attention_mask/${n}`);
    const calls = this.stages.flatMap((stage) => stage.calls);
    const [inputs, outputs] = [named(calls), made(calls)];
    for (const name of this.stages.flatMap((stage) => stage.when)) one(hosts, name, 'host value');
    for (const name of inputs) if (!outputs.includes(name)) one(hosts, name, 'host value');
    for (const name of outputs) if (!inputs.includes(name)) one(RESULTS, name, 'result');
    for (const call of calls) {
      one(Object.keys(this.graphs), call.graph, 'graph');
      for (const input of Object.values(call.inputs)) {
        const known = typeof input === 'string' || input.concat || input.sum || input.constant;
        if (!known) throw new Refusal(`the input ${JSON.stringify(input)}`);
        if (input.constant) kindOf(input.constant.dtype);
      }
    }
  }

  async readConstants(bundle) {
    for (const { constant } of this.stages.flatMap((s) => s.calls).flatMap((call) => Object.values(call.inputs))) {
      if (constant) this.constants.set(constant.path, fromBytes(await bundle.read(constant.path), constant.dtype, constant.shape));
    }
  }

  // The first variant of a stage for which every host value in its `when` is there.
  variant(name, hosts) {
    return this.stages.find(({ stage, when }) => stage === name && when.every((host) => hosts.has(host)));
  }

  graphsOf(stage) {
    return [...new Set(stage.calls.map((call) => call.graph))];
  }

  // The value of a call's input, of the values that `get` knows by name.
  #input(input, get) {
    if (typeof input === 'string') return get(input);
    if (input.concat) return concat(input.concat.map(get), input.axis);
    if (input.sum) return sum(input.sum.map(get));
    return this.constants.get(input.constant.path);
  }

  // The calls of a stage, once: `loaded` holds the graphs, `get` the values that are there. The answer
  // is a Map of the values that were made.
  async run(stage, loaded, get) {
    const values = new Map();
    const look = (name) => values.get(name) ?? get(name);
    for (const call of stage.calls) {
      const inputs = {};
      for (const [name, input] of Object.entries(call.inputs)) inputs[name] = this.#input(input, look);
      const outputs = await loaded[call.graph].run(inputs);
      for (const [name, value] of Object.entries(call.outputs)) values.set(value, outputs[name]);
    }
    return values;
  }

  // The values that encode_prompt would make, as zeros of their shapes.
  zeros(stage) {
    const values = new Map();
    for (const call of stage.calls) {
      for (const { name, shape, dtype } of this.graphs[call.graph].spec.outputs) {
        if (call.outputs[name]) values.set(call.outputs[name], zeros(dtype, resolve(shape, {})));
      }
    }
    return values;
  }

  #dependsOnHalf(stage) {
    const names_ = new Set(this.perHalf);
    return stage.calls.map((call) => {
      const depends = (input) => names(input).some((name) => names_.has(name) || HALF_HOST.test(name));
      const inputs = Object.keys(call.inputs).filter((name) => depends(call.inputs[name]));
      if (inputs.length) for (const value of Object.values(call.outputs)) names_.add(value);
      return inputs;
    });
  }

  // Whether both halves may be given to every graph of the stage in one call.
  canStack(stage) {
    const depends = this.#dependsOnHalf(stage);
    const free = (ends, name) => typeof ends.find((end) => end.name === name).shape[0] === 'string';
    return stage.calls.every((call, i) => depends[i].every((name) => free(this.graphs[call.graph].spec.inputs, name)));
  }

  // As run(), for all halves: `gets` has one `get` for each. The answer is a list of Maps.
  async runStacked(stage, loaded, gets) {
    const depends = this.#dependsOnHalf(stage);
    const made_ = gets.map(() => new Map());
    for (const [i, call] of stage.calls.entries()) {
      const inputs = {};
      const both = depends[i].length > 0;
      for (const { name, shape } of this.graphs[call.graph].spec.inputs) {
        const each = gets.map((get, half) => this.#input(call.inputs[name], (value) => made_[half].get(value) ?? get(value)));
        inputs[name] = both && typeof shape[0] === 'string' ? concat(each, 0) : each[0];
      }
      const outputs = await loaded[call.graph].run(inputs);
      for (const [name, value] of Object.entries(call.outputs)) {
        const parts = both ? cut(outputs[name], gets.length) : gets.map(() => outputs[name]);
        parts.forEach((part, half) => made_[half].set(value, part));
      }
    }
    return made_;
  }
}

// negative + g * (positive - negative), each rounded to float32.
export function guide(negative, positive, scale) {
  const g = Math.fround(scale);
  const data = negative.data.map((n, i) => n + Math.fround(g * Math.fround(positive.data[i] - n)));
  return tensor('float32', positive.shape, data);
}
