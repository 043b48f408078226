// Runs browser.html in headless Chromium, with a bundle:  node browser_check.js BUNDLE
// Prints a table, and exits with 1 where a check fails. CHROMIUM names another program than
// /usr/bin/chromium.

import { createReadStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import puppeteer from 'puppeteer-core';

import { printTable } from './table.js';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' };
const here = fileURLToPath(new URL('.', import.meta.url));
const bundle = resolve(process.argv[2]);

const server = createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
  const file = path.startsWith('/bundle/') ? join(bundle, path.slice(8)) : join(here, path);
  if (path === '/favicon.ico') return response.writeHead(204).end();
  if (!(await stat(file).catch(() => null))?.isFile()) return response.writeHead(404).end();
  response.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' });
  createReadStream(file).pipe(response);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const profile = await mkdtemp(join(tmpdir(), 'foreign-reader-'));
let browser;
let result;
try {
  browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    userDataDir: profile,
    protocolTimeout: 600_000,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(String(error)));
  page.on('console', (message) => console.error(message.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/browser.html`);
  await page.waitForFunction(() => document.title === 'done', { timeout: 600_000, polling: 500 });
  result = JSON.parse(await page.$eval('#result', (element) => element.textContent));
} finally {
  await browser?.close();
  server.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
console.log(result.agent);
if (result.error) console.error(result.error);
process.exitCode = printTable(bundle, result.rows) && !result.error ? 0 : 1;
