// Checks bundles as an app does before it trusts itself:  node check.js BUNDLE [BUNDLE ...]
// All files, the conformance vectors, one recorded call of each graph, one picture. Exits with 1 where
// anything fails.

import { checkGraphs, checkPicture, checkVectors } from './conformance.js';
import { openFolder } from './node.js';
import { printTable } from './table.js';

if (process.argv.length < 3) throw new Error('node check.js BUNDLE [BUNDLE ...]');
for (const root of process.argv.slice(2)) {
  const rows = [];
  const step = async (name, work) => {
    try {
      rows.push(...(await work()));
    } catch (error) {
      rows.push({ name, ok: false, detail: error.stack });
    }
  };
  let reader;
  await step('open', async () => {
    reader = await openFolder(root);
    const faults = await reader.bundle.faults();
    return [{ name: 'whole', ok: !faults.length, detail: faults.join('; ') || `${reader.bundle.files.size} files` }];
  });
  if (reader) {
    await step('vectors', () => checkVectors(reader));
    await step('graphs', () => checkGraphs(reader));
    await step('picture', () => checkPicture(reader));
  }
  if (!printTable(root, rows)) process.exitCode = 1;
}
