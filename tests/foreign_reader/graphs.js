// Running a graph (BUNDLE.md, section 5) with ONNX Runtime. `ort` is the module of onnxruntime-node or of
// onnxruntime-web: both have one interface. Values go in and come out in the convention of `spec`;
// what the file wants instead (`file_spec`, `transposes`) is done here.

import { Refusal } from './refusal.js';
import { convert, kindOf, reshape, tensor, transpose } from './tensors.js';

export class Engine {
  constructor(ort, bundle, options = {}) {
    this.ort = ort;
    this.bundle = bundle;
    this.options = options;
  }

  async load(index) {
    for (const path of index.files) await this.bundle.check(path);
    const { source } = this.bundle;
    const options = { ...this.options };
    if (source.engineData && index.external_data?.length) { // browsers
      const part = async ({ location, path }) => ({ path: location, data: await source.engineData(path) });
      options.externalData = await Promise.all(index.external_data.map(part));
    }
    const file = await source.engineFile(index.path);
    return new Graph(this.ort, index, await this.ort.InferenceSession.create(file, options));
  }
}

export class Graph {
  constructor(ort, index, session) {
    Object.assign(this, { ort, index, session });
  }

  // `inputs` by the names of `spec`; the answer holds the outputs by their names there.
  async run(inputs) {
    const { spec, file_spec, transposes = {} } = this.index;
    const sizes = axes(spec.inputs, inputs);
    const fileOf = (end, i) => (file_spec ? file_spec[end][i] : spec[end][i]);
    const feeds = {};
    spec.inputs.forEach((told, i) => {
      const file = fileOf('inputs', i);
      let array = transpose(inputs[told.name], transposes[told.name]);
      array = convert(reshape(array, resolve(file.shape, sizes)), file.dtype);
      feeds[file.name] = new this.ort.Tensor(array.dtype, array.data, array.shape);
    });
    const results = await this.session.run(feeds);
    const outputs = {};
    spec.outputs.forEach((told, i) => {
      const file = fileOf('outputs', i);
      const order = transposes[told.name];
      const shape = resolve(told.shape, sizes);
      let { data } = results[file.name];
      if (data.constructor.name === 'Float16Array') data = new Uint16Array(data.buffer, data.byteOffset, data.length);
      const array = reshape(tensor(file.dtype, [data.length], data), order ? order.map((axis) => shape[axis]) : shape);
      outputs[told.name] = convert(order ? transpose(array, order.map((_, axis) => order.indexOf(axis))) : array, told.dtype);
    });
    return outputs;
  }

  release() {
    return this.session.release();
  }
}

// The lengths of the free axes, from the inputs that are given.
function axes(specs, inputs) {
  const sizes = {};
  for (const { name, shape, dtype } of specs) {
    const given = inputs[name]?.shape;
    if (given && inputs[name].dtype !== dtype) throw new Refusal(`a value of ${inputs[name].dtype} for the input ${name} of ${dtype}`);
    const fits = given?.length === shape.length && shape.every((length, i) =>
      typeof length === 'number' ? length === given[i] : (sizes[length] ??= given[i]) === given[i]);
    if (!fits) throw new Error(`the input ${name} is [${given}], the graph wants [${shape}]`);
  }
  return sizes;
}

export function resolve(shape, sizes) {
  return shape.map((length) => (typeof length === 'number' ? length : sizes[length] ?? 1));
}

// Every dtype of every graph is one that BUNDLE.md lists.
export function checkDtypes(graphs) {
  for (const { spec, file_spec } of Object.values(graphs)) {
    for (const part of [spec, file_spec]) {
      for (const { dtype } of part ? [...part.inputs, ...part.outputs] : []) kindOf(dtype);
    }
  }
}

export function checkTokenizers(tokenizers) {
  for (const { kind } of tokenizers) if (kind !== 'clip') throw new Refusal(`the tokenizer kind ${JSON.stringify(kind)}`);
}
