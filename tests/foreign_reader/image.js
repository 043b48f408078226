// Pictures: levels to numbers and back (BUNDLE.md, sections 9 and 10), Pillow's Lanczos filter, and
// a reader of the PNG files of golden pictures.

import { roundHalfEven } from './tensors.js';

// Rows of RGB to [1, 3, H, W] in -1..1.
export function pictureToNumbers(rgb) {
  const area = rgb.length / 3;
  const numbers = new Float32Array(rgb.length);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < area; i++) numbers[c * area + i] = Math.fround(rgb[3 * i + c] / 127.5) - 1;
  }
  return numbers;
}

// [1, 3, H, W] to rows of RGB.
export function numbersToPicture(decoded) {
  const area = decoded.length / 3;
  const rgb = new Uint8Array(decoded.length);
  let finite = true;
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < area; i++) {
      const value = decoded[c * area + i];
      finite &&= Number.isFinite(value);
      const unit = Math.fround(Math.fround(value * 0.5) + 0.5);
      rgb[3 * i + c] = roundHalfEven(Math.fround(Math.min(Math.max(unit, 0), 1) * 255)); // NaN becomes 0
    }
  }
  return { rgb, finite };
}

// A rough picture of latents [1, c, h, w], one pixel for each, while a picture is drawn (section 3).
export function previewPicture(latents, { matrix, bias }) {
  const area = latents.length / matrix.length;
  return Uint8Array.from({ length: area * 3 }, (_, i) => {
    const [pixel, k] = [Math.floor(i / 3), i % 3];
    const level = matrix.reduce((sum, row, c) => sum + latents[c * area + pixel] * row[k], bias[k]);
    return Math.round(Math.min(Math.max(level, 0), 1) * 255);
  });
}

// Rows of RGBA over white.
export function overWhite(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0; i < rgba.length / 4; i++) {
    const alpha = rgba[4 * i + 3];
    for (let c = 0; c < 3; c++) rgb[3 * i + c] = Math.round((rgba[4 * i + c] * alpha + 255 * (255 - alpha)) / 255);
  }
  return rgb;
}

// Pillow's Image.resize with LANCZOS: along one axis after the other, with whole levels between, and
// weights of 22 bits. The columns come first where the height shrinks by more than twice the width.
export function resize(rgb, width, height, toWidth, toHeight) {
  const alongRows = (levels, lines) =>
    toWidth === width ? levels : resample(levels, lines, width, toWidth, width * 3, 3, toWidth * 3);
  const alongColumns = (levels, run) =>
    toHeight === height ? levels : resample(levels, run, height, toHeight, 3, run * 3, 3);
  const fewerRows = height - toHeight;
  if (fewerRows > 0 && fewerRows > 2 * (width - toWidth)) return alongRows(alongColumns(rgb, width), toHeight);
  return alongColumns(alongRows(rgb, height), toWidth);
}

// Each of `lines` lines of `from` pixels becomes one of `to` pixels; the pixels of a line are `step`
// bytes apart, and two lines `line` bytes before and `toLine` bytes after.
function resample(levels, lines, from, to, line, step, toLine) {
  const result = new Uint8Array(lines * to * 3);
  const scale = from / to;
  const widened = Math.max(scale, 1);
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - 3 * widened + 0.5), 0);
    const end = Math.min(Math.trunc(center + 3 * widened + 0.5), from);
    const weights = [];
    for (let j = first; j < end; j++) {
      const x = (j - center + 0.5) * (1 / widened);
      weights.push(x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0);
    }
    const total = weights.reduce((sum, w) => sum + w, 0);
    const whole = weights.map((w) => (total === 0 ? w : w / total)).map((w) => Math.trunc(w * 2 ** 22 + (w < 0 ? -0.5 : 0.5)));
    for (let l = 0; l < lines; l++) {
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** 21;
        for (let j = first; j < end; j++) sum += levels[l * line + j * step + c] * whole[j - first];
        result[l * toLine + i * step + c] = Math.min(Math.max(Math.floor(sum / 2 ** 22), 0), 255);
      }
    }
  }
  return result;
}

// A PNG of 8 bits a channel, grey, RGB or with alpha, not interlaced: {width, height, rgb}.
export async function readPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let header;
  for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
    const data = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === 'IHDR') header = data;
    if (name === 'IDAT') parts.push(data);
  }
  const [width, height] = [0, 4].map((at) => new DataView(header.buffer, header.byteOffset).getUint32(at));
  const channels = { 0: 1, 2: 3, 4: 2, 6: 4 }[header[9]];
  if (header[8] !== 8 || !channels || header[12] !== 0) throw new Error('a PNG of a kind that is not read here');
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate'));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const run = width * channels;
  const levels = new Uint8Array(run * height);
  for (let y = 0; y < height; y++) {
    const filter = packed[y * (run + 1)];
    for (let i = 0; i < run; i++) {
      const left = i < channels ? 0 : levels[y * run + i - channels];
      const up = y === 0 ? 0 : levels[(y - 1) * run + i];
      const corner = i < channels || y === 0 ? 0 : levels[(y - 1) * run + i - channels];
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      levels[y * run + i] = packed[y * (run + 1) + 1 + i] + guess;
    }
  }
  if (channels === 3) return { width, height, rgb: levels };
  const rgba = new Uint8Array(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    const pixel = levels.subarray(i * channels, (i + 1) * channels);
    const [r, g, b] = channels < 3 ? [pixel[0], pixel[0], pixel[0]] : pixel;
    rgba.set([r, g, b, channels % 2 ? 255 : pixel.at(-1)], 4 * i);
  }
  return { width, height, rgb: overWhite(rgba), rgba };
}

function paeth(left, up, corner) {
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(left + up - corner - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}
