// CLIP's tokenizer (BUNDLE.md, section 6). It works on lists of code points and on the bundle's own
// character tables, so that no Unicode table of the JavaScript engine can change an id. Each code point
// keeps the place in the prompt that it came from, {point, at}, so that a reader can tell the user
// where the prompt was cut.

// The first texts of step 4, and the words that each becomes.
const FIXED = [
  ...['startoftext', 'endoftext'].map((name) => ['<|', name, '|>']),
  ...["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map((ending) => [ending]),
].map((words) => ({ words, points: points(words.join('')) }));

// The characters of a text; a lone surrogate becomes U+FFFD.
function characters(text) {
  let at = 0;
  return Array.from(text, (character) => {
    const point = character.codePointAt(0);
    at += character.length;
    return { point: point >= 0xd800 && point < 0xe000 ? 0xfffd : point, at: at - character.length };
  });
}

function points(text) {
  return characters(text).map(({ point }) => point);
}

// Whether the characters from `at` on are these code points.
function startsAt(list, part, at) {
  if (at + part.length > list.length) return false;
  for (let i = 0; i < part.length; i++) if (list[at + i].point !== part[i]) return false;
  return true;
}

// A flat list, cut into entries of n numbers.
const entries = (flat, n) => Array.from({ length: flat.length / n }, (_, i) => flat.slice(i * n, (i + 1) * n));

// The entry [first, last, ...] of a list in ascending order that holds the code point, or undefined.
function find(ranges, point) {
  let low = 0;
  let high = ranges.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (point < ranges[middle][0]) high = middle - 1;
    else if (point > ranges[middle][1]) low = middle + 1;
    else return ranges[middle];
  }
  return undefined;
}

export class Characters {
  constructor(tables) {
    this.letters = entries(tables.letters, 2);
    this.digits = entries(tables.digits, 2);
    this.spaces = entries(tables.spaces, 2);
    this.words = entries(tables.words, 2);
    this.lowers = new Map(tables.lower_several.map(([point, ...several]) => [point, several]));
    for (const [first, last, step, difference] of entries(tables.lower, 4)) {
      for (let point = first; point <= last; point += step) this.lowers.set(point, [point + difference]);
    }
    this.classes = entries(tables.classes, 3);
    this.decompositions = new Map(tables.decompositions.map(([point, ...full]) => [point, full]));
    this.compositions = new Map(entries(tables.compositions, 3).map(([a, b, c]) => [`${a} ${b}`, c]));
  }

  isLetter = (point) => find(this.letters, point) !== undefined;
  isDigit = (point) => find(this.digits, point) !== undefined;
  isSpace = (point) => find(this.spaces, point) !== undefined;
  isWord = (point) => find(this.words, point) !== undefined;
  isOther = (point) => !this.isSpace(point) && !this.isLetter(point) && !this.isDigit(point);
  lower = (point) => this.lowers.get(point) ?? [point];

  // Step 3: NFC, white space, lower case.
  normalize(list) {
    const spaced = [];
    for (const { point, at } of this.nfc(list)) {
      if (!this.isSpace(point)) spaced.push({ point, at });
      else if (spaced.at(-1)?.point !== 0x20) spaced.push({ point: 0x20, at });
    }
    return spaced.flatMap(({ point, at }) => this.lower(point).map((lower) => ({ point: lower, at })));
  }

  // Unicode Standard Annex 15: decompose, order, compose.
  nfc(list) {
    const apart = list.flatMap(({ point, at }) => this.#decompose(point).map((part) => ({ point: part, at, order: this.#order(part) })));
    for (let first = 0; first < apart.length; ) {
      let end = first;
      while (end < apart.length && apart[end].order !== 0) end++;
      const run = apart.slice(first, end).sort((a, b) => a.order - b.order); // stable
      apart.splice(first, run.length, ...run);
      first = end + 1;
    }
    const out = [];
    let starter = null;
    let last = 0; // the class of the last character that stayed behind the starter; -1: none did
    for (const { point, at, order } of apart) {
      const joined = starter && last < order ? this.#compose(starter.point, point) : undefined;
      if (joined !== undefined) starter.point = joined;
      else {
        out.push({ point, at });
        last = order === 0 ? -1 : order;
        if (order === 0) starter = out.at(-1);
      }
    }
    return out;
  }

  #order(point) {
    return find(this.classes, point)?.[2] ?? 0;
  }

  #decompose(point) {
    const s = point - 0xac00;
    if (s < 0 || s >= 11172) return this.decompositions.get(point) ?? [point];
    const syllable = [0x1100 + Math.floor(s / 588), 0x1161 + Math.floor((s % 588) / 28)];
    return s % 28 ? [...syllable, 0x11a7 + (s % 28)] : syllable;
  }

  #compose(a, b) {
    if (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176) return 0xac00 + ((a - 0x1100) * 21 + b - 0x1161) * 28;
    if (a >= 0xac00 && a < 0xd7a4 && (a - 0xac00) % 28 === 0 && b > 0x11a7 && b < 0x11c3) return a + b - 0x11a7;
    return this.compositions.get(`${a} ${b}`);
  }
}

// Step 5: the character of each byte.
export const BYTE = (() => {
  const table = [];
  let extra = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.push(String.fromCodePoint(itself ? byte : extra++));
  }
  return table;
})();

const END = '</w>';

export class ClipTokenizer {
  // `index` is an entry of the pipeline's `tokenizers`; the others are what its files hold.
  constructor(index, vocabulary, merges, tables) {
    this.index = index;
    this.characters = new Characters(tables);
    this.vocabulary = new Map(Object.entries(vocabulary));
    this.ranks = new Map();
    merges.split('\n').forEach((line, i) => {
      if (line === '' || (i === 0 && line.startsWith('#version'))) return;
      if (!this.ranks.has(line)) this.ranks.set(line, i);
    });
    const prepared = (token, list) => ({ ...token, points: list.map(({ point }) => point) });
    const added = index.added_tokens.map((token) => [token, characters(token.text)]);
    this.typed = added.filter(([token]) => !token.normalized).map(([token, list]) => prepared(token, list));
    this.normalized = added.filter(([token]) => token.normalized)
      .map(([token, list]) => prepared(token, this.characters.normalize(list)));
  }

  // What the graphs get (step 8): ids and mask, and the end of the prompt for which there was no room.
  input(prompt) {
    const { max_length: length, bos_id, eos_id, pad_id } = this.index;
    const text = this.#expand(prompt);
    const all = this.#encode(text);
    const room = Math.max(length - 2, 0);
    const ids = new Int32Array(length).fill(pad_id);
    const kept = [bos_id, ...all.slice(0, room).map(({ id }) => id), eos_id];
    ids.set(kept);
    const mask = new Int32Array(length).fill(1, 0, kept.length);
    return { ids, mask, cut: all.length > room ? text.slice(all[room].at) : '' };
  }

  // The ids of the text alone.
  ids(prompt) {
    return this.#encode(this.#expand(prompt)).map(({ id }) => id);
  }

  // Step 1.
  #expand(prompt) {
    const expanding = this.index.added_tokens.filter(({ expansion }) => expansion);
    if (!expanding.length) return prompt;
    let text = prompt;
    for (const id of new Set(this.#encode(prompt).map((token) => token.id))) {
      for (const token of expanding) if (token.id === id) text = text.replaceAll(token.text, () => token.expansion);
    }
    return text;
  }

  // The ids of a text and their places in it: [{id, at}].
  #encode(prompt) {
    const ids = [];
    for (const piece of this.#search(characters(prompt), this.typed)) {
      if (piece.id !== undefined) ids.push(piece);
      else {
        for (const inner of this.#search(this.characters.normalize(piece.text), this.normalized)) {
          if (inner.id !== undefined) ids.push(inner);
          else for (const word of this.#split(inner.text)) ids.push(...this.#word(word));
        }
      }
    }
    return ids;
  }

  // Step 2: the text as a list of added tokens {id, at} and of stretches {text} between them.
  #search(text, tokens) {
    const pieces = [];
    const space = (i) => this.characters.isSpace(text[i].point);
    const word = (i) => i >= 0 && i < text.length && this.characters.isWord(text[i].point);
    let done = 0;
    for (let at = 0; at < text.length; ) {
      let best = null;
      for (const token of tokens) {
        if (token.points.length > (best?.points.length ?? 0) && startsAt(text, token.points, at)) best = token;
      }
      if (!best) {
        at++;
        continue;
      }
      let from = at;
      let to = at + best.points.length;
      at = to;
      if (best.single_word && (word(from - 1) || word(to))) continue;
      if (best.lstrip) while (from > done && space(from - 1)) from--;
      if (best.rstrip) while (to < text.length && space(to)) to++;
      if (from > done) pieces.push({ text: text.slice(done, from) });
      pieces.push({ id: best.id, at: text[from].at });
      done = at = to;
    }
    if (done < text.length) pieces.push({ text: text.slice(done) });
    return pieces;
  }

  // Step 4.
  #split(text) {
    const { isLetter, isDigit, isOther } = this.characters;
    const words = [];
    const take = (from, to) => words.push(text.slice(from, to)) && to;
    const run = (is, from) => {
      let to = from;
      while (to < text.length && is(text[to].point)) to++;
      return to;
    };
    for (let at = 0; at < text.length; ) {
      const { point } = text[at];
      const fixed = FIXED.find((one) => startsAt(text, one.points, at));
      if (fixed) for (const part of fixed.words) at = take(at, at + part.length);
      else if (isLetter(point)) at = take(at, run(isLetter, at));
      else if (isDigit(point)) at = take(at, at + 1);
      else if (isOther(point)) at = take(at, run(isOther, at));
      else at++;
    }
    return words;
  }

  // Steps 5 to 7 for one word.
  #word(word) {
    const pieces = [];
    const places = []; // of each byte in the prompt
    for (const { point, at } of word) {
      for (const byte of new TextEncoder().encode(String.fromCodePoint(point))) {
        pieces.push(BYTE[byte]);
        places.push(at);
      }
    }
    pieces.push(pieces.pop() + END);
    const ids = [];
    let byte = 0;
    for (const piece of this.#merge(pieces)) {
      const id = this.vocabulary.get(piece) ?? this.index.unk_id;
      if (id !== null) ids.push({ id, at: places[byte] });
      byte += piece.length; // a character of a piece is a byte; only the last piece has END as well
    }
    return ids;
  }

  #merge(pieces) {
    for (;;) {
      let best = Infinity;
      let place = -1;
      for (let i = 0; i + 1 < pieces.length; i++) {
        const rank = this.ranks.get(`${pieces[i]} ${pieces[i + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) return pieces;
      pieces.splice(place, 2, pieces[place] + pieces[place + 1]);
    }
  }
}
