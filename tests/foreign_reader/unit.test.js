// What can be known of a reader without any bundle:  node --test unit.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openBundle, sha256 } from './bundle.js';
import { Graph } from './graphs.js';
import { numbersToPicture, resize } from './image.js';
import { Generator } from './noise.js';
import { Program } from './program.js';
import { startOf } from './reader.js';
import { advance, StepTables } from './steps.js';
import { concat, cut, fromHalf, sum, tensor, toHalf, transpose } from './tensors.js';
import { axisOf, decodeTiles, tilesOf } from './tiles.js';
import { Characters, ClipTokenizer } from './tokenizer.js';

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
  const tall = Uint8Array.from({ length: 2 * 6 * 3 }, (_, i) => (i * 37) % 256); // 2 wide, 6 high: the columns come first
  const pillows = [158, 95, 48, 105, 97, 104, 51, 99, 160, 135, 183, 190, 137, 130, 113, 139, 76, 36];
  assert.deepEqual([...resize(tall, 2, 6, 3, 2)], pillows);
});

test('a row is advanced in the order that is written, and needs its history', () => {
  const row = { p: 0, q: 1, a: 0.5, b0: 2, b1: 0, b2: 0, b3: 0, b4: 0, c: 0 };
  const { x, history } = advance(row, Float32Array.of(4), Float32Array.of(3), [], null);
  assert.deepEqual([x, history], [Float32Array.of(8), [Float32Array.of(3)]]);
  assert.throws(() => advance({ ...row, b1: 1 }, x, x, [], null), /history/);
});

test('tiles lie where the specification says, and are blended in float32', async () => {
  assert.deepEqual(axisOf(11, 4, 1).starts, [0, 2, 4, 7]); // the example of section 10
  assert.deepEqual(axisOf(3, 4, 1), { n: 3, t: 3, starts: [0] });
  const columns = axisOf(3, 2, 1);
  const levels = [1, 3]; // of the first and the second tile
  const picture = await decodeTiles({ rows: axisOf(1, 2, 1), columns, s: 1, channels: 1 }, Float32Array.of(7, 8, 9), (tile, shape) => {
    assert.deepEqual([...tile, shape], levels.length > 1 ? [7, 8, [1, 1, 1, 2]] : [8, 9, [1, 1, 1, 2]]);
    return new Float32Array(6).fill(levels.shift());
  });
  assert.deepEqual([...picture.subarray(0, 3)], [1, 2, 3]);
});

test('tiles that cannot be are refused by name', () => {
  const spec = { inputs: [{ name: 'x', shape: [1, 4, 8, 8] }], outputs: [{ name: 'y', shape: [1, 3, 32, 32] }] };
  const calls = [{ graph: 'decoder', inputs: { x: 'decoder_latents' }, outputs: { y: 'decoded' } }];
  const of = (tile_size, tile_overlap) => tilesOf({
    vae: { tile_size, tile_overlap }, latents: { channels: 4, height: 16, width: 16, scale: 4 },
    program: { stages: [{ stage: 'decode', calls }] }, graphs: { decoder: { spec } },
  });
  assert.equal(of(null, null), null);
  assert.deepEqual(of(32, 8).rows.starts, [0, 4, 8]);
  const wrong = [[32, null], [null, 8], [32, 32], [30, 8], [32, 6], [64, 8], [32, -4], [24, 8]];
  for (const [size, overlap] of wrong) assert.throws(() => of(size, overlap), /vae.tile_size/);
});

test('image to image starts as the strength says', () => {
  assert.equal(startOf(20, 0.8), 4);
  assert.equal(startOf(4, 1), 0);
  for (const strength of [0.2, 0, -1, 1.001, NaN]) assert.throws(() => startOf(4, strength), /strength/);
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
  await assert.rejects(open({ version: 2, files: { '../x': {} } }), /not a path/);
});

test('Hangul is composed by rule', () => {
  const tables = new Characters({ letters: [], digits: [], spaces: [], words: [], lower: [], lower_several: [], classes: [], decompositions: [], compositions: [] });
  const list = [0x1112, 0x1161, 0x11ab, 0xac00, 0x11a8].map((point, at) => ({ point, at }));
  assert.deepEqual(tables.nfc(list), [{ point: 0xd55c, at: 0 }, { point: 0xac01, at: 3 }]);
});

test('a bundle that is not whole says why', async () => {
  const files = { 'graphs/a.bin': text('a'), 'report/a.html': text('b'), 'report/b.html': text('c') };
  const table = {};
  for (const [path, bytes] of Object.entries(files)) {
    table[path] = { sha256: await sha256(bytes), size: bytes.length, role: path.startsWith('report') ? 'report' : 'runtime' };
  }
  const key = await sha256(text(`${table['graphs/a.bin'].sha256}  graphs/a.bin\n`));
  const passed_over = { files: ['._*', 'icon\r'], folders: ['__macosx', '.tr?sh'] };
  const manifest = { version: 2, files: table, passed_over, runtime_id: key, bundle_id: key };
  const bytes = text(JSON.stringify(manifest));
  const faults = async (change) => {
    const here = { ...files, 'manifest.json': bytes, 'manifest.sha256': text(`${await sha256(bytes)}  manifest.json\n`), ...change };
    for (const [path, value] of Object.entries(here)) if (value === null) delete here[path];
    const list = async () => Object.keys(here).map((path) => ({ path, link: path.endsWith('link') }));
    const read = async (path) => here[path];
    const source = { list, read, size: async (path) => here[path].length, sha256: async (path) => sha256(here[path]) };
    return (await openBundle(source)).faults();
  };
  const none = text('');
  assert.deepEqual(await faults({}), []);
  assert.deepEqual(await faults({ 'a/._x': none, 'Icon\r': none, 'a/__MACOSX/b': none, '.Trash/x': none }), []);
  assert.deepEqual(await faults({ 'report/a.html': null, 'report/b.html': null }), []);
  assert.match(String(await faults({ 'report/a.html': null })), /report\/a.html \(report\) is missing/);
  assert.match(String(await faults({ 'graphs/a.bin': null })), /graphs\/a.bin \(runtime\) is missing/);
  assert.match(String(await faults({ 'graphs/a.bin': text('b') })), /sha256/);
  assert.match(String(await faults({ 'graphs/a.bin': text('aa') })), /size/);
  assert.match(String(await faults({ 'graphs/__macosx': none })), /not in the manifest's table/);
  await assert.rejects(faults({ 'manifest.sha256': none }), /manifest.sha256/);
  await assert.rejects(faults({ 'manifest.json': text('{}') }), /manifest.json is not the file/);
});

test('a graph is given what its file wants', async () => {
  class Tensor {
    constructor(type, data, dims) {
      Object.assign(this, { type, data, dims });
    }
  }
  const seen = {};
  const session = { run: async (feeds) => Object.assign(seen, feeds) && { z: { data: Float32Array.of(1, 2, 3, 4, 5, 6) } } };
  const end = (name, shape, dtype = 'float32') => [{ name, shape, dtype }];
  const graph = new Graph({ Tensor }, {
    spec: { inputs: end('a', ['n', 2, 3]), outputs: end('b', ['n', 2, 3]) },
    file_spec: { inputs: end('y', ['n', 3, 2, 1], 'int64'), outputs: end('z', [6]) },
    transposes: { a: [0, 2, 1], b: [0, 2, 1] },
  }, session);
  const a = tensor('float32', [1, 2, 3], Float32Array.of(1, 2, 3, 4, 5, 6.5));
  const { b } = await graph.run({ a });
  assert.deepEqual({ ...seen.y }, { type: 'int64', data: BigInt64Array.of(1n, 4n, 2n, 5n, 3n, 6n), dims: [1, 3, 2, 1] });
  assert.deepEqual(b, tensor('float32', [1, 2, 3], Float32Array.of(1, 3, 5, 2, 4, 6)));
  await assert.rejects(graph.run({ a: { ...a, dtype: 'int32' } }), /int32/);
  await assert.rejects(graph.run({ a: { ...a, shape: [3, 2] } }), /the graph wants/);
});

test('both halves in one call give what two calls give, and shared calls are made once', async () => {
  const end = (name, shape) => ({ name, shape, dtype: 'float32' });
  const graphs = {
    text: { spec: { inputs: [end('t', [1, 2])], outputs: [end('s', [1, 2])] } },
    shared: { spec: { inputs: [end('x', ['b', 2])], outputs: [end('y', ['b', 2])] } },
    unet: { spec: { inputs: [end('x', ['b', 2]), end('s', ['b', 4]), end('k', [2])], outputs: [end('o', ['b', 2])] } },
  };
  const denoise = { stage: 'denoise', when: [], required: true, calls: [
    { graph: 'shared', inputs: { x: 'scaled_latents' }, outputs: { y: 'shared' } },
    { graph: 'unet', inputs: { x: { sum: ['latents', 'shared'] }, s: { concat: ['states', 'states'], axis: 1 }, k: { constant: { path: 'k', dtype: 'float32', shape: [2] } } }, outputs: { o: 'model_output' } },
  ] };
  const stages = [
    { stage: 'encode_prompt', when: [], required: true, calls: [{ graph: 'text', inputs: { t: 'tokens/1' }, outputs: { s: 'states' } }] },
    denoise,
    { stage: 'decode', when: [], required: true, calls: [{ graph: 'shared', inputs: { x: 'decoder_latents' }, outputs: { y: 'decoded' } }] },
  ];
  const program = new Program({ tokenizers: [{}], graphs, program: { guidance: 'classifier_free', absent_negative: 'zeros', draws: [], stages } });
  await program.readConstants({ read: async () => new Uint8Array(Float32Array.of(10, 20).buffer) });
  const calls = [];
  const loaded = {
    shared: { run: async ({ x }) => calls.push('shared') && { y: tensor('float32', x.shape, x.data.map((v) => 2 * v)) } },
    unet: { run: async ({ x, s, k }) => calls.push(`unet ${x.shape[0]}`) && {
      o: tensor('float32', x.shape, x.data.map((v, i) => v + s.data[(i >> 1) * 4 + (i & 1)] + s.data[(i >> 1) * 4 + 2] + k.data[i & 1])),
    } },
  };
  const row = (...data) => tensor('float32', [1, data.length], Float32Array.from(data));
  const half = (states) => (name) => ({ latents: row(1, 2), scaled_latents: row(3, 4), states })[name];
  const halves = [half(row(100, 200)), half(row(1000, 2000))];
  assert.ok(program.canStack(denoise));
  const apart = await program.run(denoise, loaded, halves);
  const together = await program.run(denoise, loaded, halves, true);
  assert.deepEqual(apart.map((made) => [...made.get('model_output').data]), [[217, 330], [2017, 3030]]);
  assert.deepEqual(together, apart);
  assert.deepEqual(calls, ['shared', 'unet 1', 'unet 1', 'shared', 'unet 2']);
  assert.deepEqual([...program.zeros(stages[0]).entries()], [['states', row(0, 0)]]);
});

test('added tokens and expansions', () => {
  const ascii = { letters: [97, 122], digits: [48, 57], spaces: [32, 32], words: [48, 57, 95, 95, 97, 122], lower: [65, 90, 1, 32], lower_several: [], classes: [], decompositions: [], compositions: [] };
  const vocabulary = Object.fromEntries([...'abcdefghijklmnopqrstuvwxyz,'].flatMap((c, i) => [[c, i], [`${c}</w>`, 100 + i]]));
  vocabulary['ab</w>'] = 300;
  const added = (text, id, more) => ({ text, id, normalized: false, lstrip: false, rstrip: false, single_word: false, expansion: '', ...more });
  const tokenizer = new ClipTokenizer({ max_length: 5, bos_id: 1000, eos_id: 1001, pad_id: 1002, unk_id: null, added_tokens: [
    added('<c>', 200, { expansion: '<c> <c>1' }), added('<c>1', 201), added('Dog', 202, { normalized: true, single_word: true }), added('!', 203, { lstrip: true, rstrip: true }),
  ] }, vocabulary, '#version: 0.2\na b</w>\n', ascii);
  assert.deepEqual(tokenizer.ids('AB ab'), [300, 300]);
  assert.deepEqual(tokenizer.ids('x <c>, <c>'), [123, 200, 201, 126, 200, 201]);
  assert.deepEqual(tokenizer.ids('doG dogs'), [202, 3, 14, 6, 118]);
  assert.deepEqual(tokenizer.ids('a ! b'), [100, 203, 101]);
  assert.deepEqual(tokenizer.ids('a?'), [100]); // not in the vocabulary, no unk_id
  const { ids, mask, cut } = tokenizer.input('a <c>1  B z!');
  assert.deepEqual([[...ids], [...mask], cut], [[1000, 100, 201, 101, 1001], [1, 1, 1, 1, 1], 'z!']);
  assert.deepEqual([...tokenizer.input('a').mask], [1, 1, 1, 0, 0]);
});
