// Arrays with a dtype and a shape: {dtype, shape, data}, `data` a typed array in C order. float16 is
// kept as its bits in a Uint16Array, which is how ONNX Runtime takes it.

import { Refusal } from './refusal.js';

const KINDS = {
  float32: Float32Array,
  float16: Uint16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
};

export const sizeOf = (shape) => shape.reduce((product, length) => product * length, 1);

export function kindOf(dtype) {
  if (!Object.hasOwn(KINDS, dtype)) throw new Refusal(`the dtype ${JSON.stringify(dtype)}`);
  return KINDS[dtype];
}

export function tensor(dtype, shape, data) {
  if (data.length !== sizeOf(shape)) throw new Error(`${data.length} values for the shape [${shape}]`);
  return { dtype, shape, data };
}

// An array from the bytes of a file (little-endian, C order).
export function fromBytes(bytes, dtype, shape) {
  const Kind = kindOf(dtype);
  if (bytes.length !== sizeOf(shape) * Kind.BYTES_PER_ELEMENT) throw new Error(`${bytes.length} bytes for ${dtype} [${shape}]`);
  return tensor(dtype, shape, new Kind(bytes.slice().buffer));
}

export function zeros(dtype, shape) {
  return tensor(dtype, shape, new (kindOf(dtype))(sizeOf(shape)));
}

export function reshape(array, shape) {
  return tensor(array.dtype, shape, array.data);
}

export function convert(array, dtype) {
  if (array.dtype === dtype) return array;
  const Kind = kindOf(dtype);
  const numbers = array.dtype === 'float16' ? Float32Array.from(array.data, fromHalf) : array.data;
  let data;
  if (dtype === 'float16') data = Uint16Array.from(numbers, (value) => toHalf(Number(value)));
  else if (dtype === 'int64') data = BigInt64Array.from(numbers, (value) => BigInt(Math.trunc(Number(value))));
  else data = Kind.from(numbers, Number);
  return tensor(dtype, array.shape, data);
}

// numpy.transpose: axis i of the result is axis order[i] of the array.
export function transpose(array, order) {
  if (!order || order.every((axis, i) => axis === i)) return array;
  const { shape, data } = array;
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  const result = zeros(array.dtype, order.map((axis) => shape[axis]));
  const place = order.map(() => 0);
  for (let i = 0; i < data.length; i++) {
    result.data[i] = data[place.reduce((sum, p, axis) => sum + p * strides[order[axis]], 0)];
    for (let axis = order.length - 1; axis >= 0; axis--) {
      if (++place[axis] < result.shape[axis]) break;
      place[axis] = 0;
    }
  }
  return result;
}

export function concat(arrays, axis) {
  const [{ dtype, shape }] = arrays;
  const at = axis < 0 ? axis + shape.length : axis;
  const joined = shape.map((length, i) => (i === at ? arrays.reduce((sum, a) => sum + a.shape[at], 0) : length));
  const result = zeros(dtype, joined);
  let to = 0;
  for (let outer = 0; outer < sizeOf(shape.slice(0, at)); outer++) {
    for (const array of arrays) {
      const run = sizeOf(array.shape.slice(at));
      result.data.set(array.data.subarray(outer * run, (outer + 1) * run), to);
      to += run;
    }
  }
  return result;
}

// The n equal parts of an array along its first axis.
export function cut(array, n) {
  const shape = [array.shape[0] / n, ...array.shape.slice(1)];
  const run = sizeOf(shape);
  return Array.from({ length: n }, (_, i) => tensor(array.dtype, shape, array.data.slice(i * run, (i + 1) * run)));
}

// The sum of factor * array in float32, from left to right, beginning with zero; a product whose
// factor is 0 is left out. A Float32Array rounds each sum, Math.fround each product.
export function weighted(terms, length) {
  const sum = new Float32Array(length);
  for (const [factor, values] of terms) {
    if (factor === 0) continue;
    for (let i = 0; i < length; i++) sum[i] += Math.fround(factor * values[i]);
  }
  return sum;
}

export function sum(arrays) {
  const data = Float32Array.from(arrays[0].data);
  for (const { data: more } of arrays.slice(1)) for (let i = 0; i < data.length; i++) data[i] += more[i];
  return tensor('float32', arrays[0].shape, data);
}

// Peak signal to noise ratio in dB (section 11); values that are not finite have none.
export function psnr(reference, other, peak) {
  let square = 0;
  let largest = 0;
  for (let i = 0; i < reference.length; i++) {
    const a = Number(reference[i]);
    square += (a - Number(other[i])) ** 2;
    largest = Math.max(largest, Math.abs(a));
  }
  if (!Number.isFinite(square)) return -Infinity;
  return square === 0 ? Infinity : 20 * Math.log10((peak ?? largest) / Math.sqrt(square / reference.length));
}

export function fromHalf(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

// To the nearest half, ties to even.
export function toHalf(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -24)));
  for (const e of [exponent - 1, exponent, exponent + 1]) { // log2 may miss by one
    if (e < -14 || (size < 2 ** e && e > -14) || size >= 2 ** (e + 1)) continue;
    const steps = roundHalfEven(size / 2 ** (e - 10)); // 1024..2048, or fewer where subnormal
    return sign | (steps + ((e + 14) << 10));
  }
  return sign;
}

export function roundHalfEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}
