// What a reader must refuse (BUNDLE.md, section 2) is thrown as this error, which names what was found.

export class Refusal extends Error {
  constructor(what) {
    super(`this reader does not know or do ${what}`);
    this.name = 'Refusal';
  }
}
