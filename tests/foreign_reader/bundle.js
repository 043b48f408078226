// Opening a bundle (BUNDLE.md, sections 1 and 2): the digest of the manifest, the version, the table
// of files, and every file's size and sha256 when it is first read. `source` gives the bytes:
// {read(path), size(path), sha256(path)}, and list() where files can be listed (see node.js, browser.js).

import { Refusal } from './refusal.js';

export const VERSION = 2;

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export async function sha256(bytes) {
  return hex(await crypto.subtle.digest('SHA-256', bytes));
}

export async function openBundle(source) {
  const bytes = await source.read('manifest.json');
  const line = /^([0-9a-f]{64}) {2}manifest\.json\n$/.exec(utf8.decode(await source.read('manifest.sha256')));
  if (!line) throw new Error('manifest.sha256 is not one line with a digest');
  if ((await sha256(bytes)) !== line[1]) throw new Error('manifest.json is not the file that manifest.sha256 names');
  const manifest = JSON.parse(utf8.decode(bytes));
  if (manifest.version !== VERSION) throw new Refusal(`bundles of version ${JSON.stringify(manifest.version)}`);
  return new Bundle(source, manifest);
}

export class Bundle {
  constructor(source, manifest) {
    this.source = source;
    this.manifest = manifest;
    this.files = new Map(Object.entries(manifest.files));
    this.checked = new Set();
    for (const path of this.files.keys()) checkPath(path);
  }

  // Size and digest of a file of the table; each file's bytes are looked at once.
  async check(path) {
    const file = this.files.get(path);
    if (!file) throw new Error(`${path} is not in the manifest's table`);
    if (this.checked.has(path)) return;
    if ((await this.source.size(path)) !== file.size) throw new Error(`${path} has not the size that the manifest says`);
    if ((await this.source.sha256(path)) !== file.sha256) throw new Error(`${path} has not the sha256 that the manifest says`);
    this.checked.add(path);
  }

  async read(path) {
    await this.check(path);
    return this.source.read(path);
  }

  async text(path) {
    return utf8.decode(await this.read(path));
  }

  async json(path) {
    return JSON.parse(await this.text(path));
  }

  async pipeline(format) {
    const { formats } = this.manifest;
    if (!Object.hasOwn(formats, format)) throw new Refusal(`a format ${format} in this bundle`);
    return this.json(formats[format].pipeline);
  }

  async ids() {
    const key = (keep) => {
      const files = [...this.files].filter(([, file]) => keep(file)).sort(([a], [b]) => (a < b ? -1 : 1));
      return sha256(new TextEncoder().encode(files.map(([path, file]) => `${file.sha256}  ${path}\n`).join('')));
    };
    return {
      runtime_id: await key((file) => file.role === 'runtime'),
      bundle_id: await key((file) => file.role !== 'report'),
    };
  }

  // Everything that makes the bundle not whole, as sentences.
  async faults() {
    const faults = [];
    const here = new Set();
    const { passed_over } = this.manifest;
    const [files, folders] = [passed_over.files.map(pattern), passed_over.folders.map(pattern)];
    const matches = (patterns, name) => patterns.some((p) => p.test(name.toLowerCase()));
    for (const { path, link } of await this.source.list()) {
      here.add(path);
      if (this.files.has(path) || ['manifest.json', 'manifest.sha256'].includes(path)) {
        if (link) faults.push(`${path} is a link`);
        continue;
      }
      const [name, ...above] = path.split('/').reverse();
      if (matches(files, name) || above.some((folder) => matches(folders, folder))) continue;
      faults.push(`${path} is not in the manifest's table`);
    }
    const roles = new Map();
    for (const [path, { role }] of this.files) roles.set(role, [...(roles.get(role) ?? []), path]);
    for (const [role, paths] of roles) {
      const missing = paths.filter((path) => !here.has(path));
      if (role !== 'runtime' && missing.length === paths.length) continue; // all files of another role are there, or none
      faults.push(...missing.map((path) => `${path} (${role}) is missing`));
    }
    for (const [name, id] of Object.entries(await this.ids())) {
      if (this.manifest[name] !== id) faults.push(`${name} is not that of the table`);
    }
    for (const path of this.files.keys()) {
      if (here.has(path)) await this.check(path).catch((error) => faults.push(error.message));
    }
    return faults;
  }
}

function checkPath(path) {
  const part = /^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$/;
  if (path.length > 240 || !path.split('/').every((name) => part.test(name))) {
    throw new Error(`${JSON.stringify(path)} is not a path of a bundle`);
  }
}

// `*` stands for any characters, `?` for one.
function pattern(text) {
  const escaped = text.toLowerCase().replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's');
}
