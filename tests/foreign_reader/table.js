// Prints the answers of conformance.js as a table; says whether all are good.

export function printTable(title, rows) {
  console.log(title);
  const wide = Math.max(0, ...rows.map(({ name }) => name.length));
  for (const { name, ok, detail } of rows) console.log(`  ${ok ? 'ok  ' : 'FAIL'}  ${name.padEnd(wide)}  ${detail}`);
  const failed = rows.filter(({ ok }) => !ok).length;
  console.log(`${rows.length - failed} passed, ${failed} failed`);
  return failed === 0 && rows.length > 0;
}
