// What can be known of a reader without any bundle:  node --test unit.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openBundle, sha256 } from './bundle.js';
import { numbersToPicture, resize } from './image.js';
import { Generator } from './noise.js';
import { Program } from './program.js';
import { startOf } from './reader.js';
import { advance, StepTables } from './steps.js';
import { concat, cut, fromHalf, sum, tensor, toHalf, transpose } from './tensors.js';
import { Characters } from './tokenizer.js';

const text = (value) => new TextEncoder().encode(value);

test('mt19937 gives the published words', () => {
  const generator = new Generator('5489');
  assert.equal(generator.word(), 3499211612);
  for (let i = 2; i < 10000; i++) generator.word();
  assert.equal(generator.word(), 4123659995);
});

test('normal values are those that torch prints', () => {
  const near = (values, told) => told.forEach((value, i) => assert.ok(Math.abs(values[i] - value) < 5e-5));
  near(new Generator('0').normal(3), [1.541, -0.2934, -2.1788]);
  near(new Generator('42').normal(16), [1.9269, 1.4873, 0.9007, -2.1055]);
  near(new Generator('0').normal(64), [-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.692, -0.316, -2.1152]);
  assert.deepEqual(new Generator('-1').normal(3), new Generator('18446744073709551615').normal(3));
  assert.throws(() => new Generator('18446744073709551616'), /out of range/);
});

test('halves are rounded to even, and come back', () => {
  for (let bits = 0; bits < 0x7c00; bits++) assert.equal(toHalf(fromHalf(bits)), bits);
  assert.equal(toHalf((fromHalf(101) + fromHalf(102)) / 2), 102);
  assert.equal(toHalf(65519.9), 0x7bff);
  assert.equal(toHalf(65520), 0x7c00);
});

test('arrays', () => {
  const a = tensor('float32', [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
  assert.deepEqual(transpose(a, [1, 0]), tensor('float32', [3, 2], Float32Array.of(1, 4, 2, 5, 3, 6)));
  assert.deepEqual(concat([a, a], -1).data, Float32Array.of(1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6));
  assert.deepEqual(cut(concat([a, a], 0), 2)[1], a);
  assert.deepEqual(sum([a, a, a]).data, Float32Array.of(3, 6, 9, 12, 15, 18));
});

test('pictures', () => {
  const decoded = Float32Array.of(NaN, -2, 0, 2, 1, -1);
  assert.deepEqual(numbersToPicture(decoded), { rgb: Uint8Array.of(0, 128, 255, 0, 255, 0), finite: false });
  assert.ok(resize(new Uint8Array(7 * 5 * 3).fill(99), 7, 5, 3, 9).every((level) => level === 99));
});

test('a row is advanced in the order that is written, and needs its history', () => {
  const row = { p: 0, q: 1, a: 0.5, b0: 2, b1: 0, b2: 0, b3: 0, b4: 0, c: 0 };
  const { x, history } = advance(row, Float32Array.of(4), Float32Array.of(3), [], null);
  assert.deepEqual([x, history], [Float32Array.of(8), [Float32Array.of(3)]]);
  assert.throws(() => advance({ ...row, b1: 1 }, x, x, [], null), /history/);
});

test('image to image starts as the strength says', () => {
  assert.equal(startOf(20, 0.8), 4);
  assert.equal(startOf(4, 1), 0);
  assert.throws(() => startOf(4, 0.2), /strength/);
});

test('unknown things are refused by name', async () => {
  const tables = new StepTables({ most_steps: 2, samplers: { ddim: { rows: [1, 0] } } }, new Uint8Array(4));
  assert.throws(() => tables.read('heun', 2), /"heun"/);
  assert.throws(() => tables.read('ddim', 3), /3 steps/);
  assert.throws(() => tables.read('ddim', 2), /2 steps/);
  const call = { graph: 'g', inputs: { a: 'tokens/1' }, outputs: { b: 'decoded' } };
  const stages = ['encode_prompt', 'denoise', 'decode'].map((stage) => ({ stage, when: [], required: true, calls: [call] }));
  const program = (more) => () => new Program({
    tokenizers: [{}], graphs: { g: {} },
    program: { guidance: 'none', absent_negative: 'zeros', draws: [], stages, ...more },
  });
  program({})();
  program({ stages: [...stages, { stage: 'polish', when: ['x'], required: false, calls: [] }] })();
  assert.throws(program({ guidance: 'perp' }), /"perp"/);
  assert.throws(program({ stages: [...stages, { stage: 'polish', when: [], required: true, calls: [] }] }), /"polish"/);
  assert.throws(program({ stages: [...stages, { ...stages[1], when: ['depth'] }] }), /"depth"/);
  assert.throws(program({ stages: [...stages, { ...stages[1], calls: [{ ...call, inputs: { a: 'tokens/2' } }] }] }), /"tokens\/2"/);
  assert.throws(program({ draws: ['image'] }), /"image"/);

  const open = async (manifest) => {
    const bytes = text(JSON.stringify(manifest));
    const files = { 'manifest.json': bytes, 'manifest.sha256': text(`${await sha256(bytes)}  manifest.json\n`) };
    return openBundle({ read: async (path) => files[path] });
  };
  await assert.rejects(open({ version: 3 }), /version 3/);
  await assert.rejects(open({ version: 2, files: { '../x': {} } }), /no path/);
});

test('Hangul is composed by rule', () => {
  const tables = new Characters({ letters: [], digits: [], spaces: [], words: [], lower: [], lower_several: [], classes: [], decompositions: [], compositions: [] });
  const list = [0x1112, 0x1161, 0x11ab, 0xac00, 0x11a8].map((point, at) => ({ point, at }));
  assert.deepEqual(tables.nfc(list), [{ point: 0xd55c, at: 0 }, { point: 0xac01, at: 3 }]);
});
