// CLIP's tokenizer (BUNDLE.md, section 6). It works on lists of code points and on the bundle's own
// character tables, so that no Unicode table of the JavaScript engine can change an id.

const WORDS = ['<|startoftext|>', '<|endoftext|>', "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map(points);
const UNDERSCORE = 0x5f;

function points(text) {
  return Array.from(text, (character) => character.codePointAt(0));
}

function startsAt(list, part, at) {
  if (at + part.length > list.length) return false;
  for (let i = 0; i < part.length; i++) if (list[at + i] !== part[i]) return false;
  return true;
}

// The entry [first, last, ...] of a sorted list that holds the code point, or undefined.
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

const sorted = (ranges) => [...ranges].sort((a, b) => a[0] - b[0]);

export class Characters {
  constructor(tables) {
    this.letters = sorted(tables.letters);
    this.digits = sorted(tables.digits);
    this.spaces = sorted(tables.space);
    this.lowerRanges = tables.lower; // ranges of step 2 may lie in each other: all are looked at
    this.lowerSpecial = new Map(Object.entries(tables.lower_special).map(([k, v]) => [Number(k), v]));
    this.classes = sorted(tables.nfc.classes);
    this.decompositions = new Map(Object.entries(tables.nfc.decompositions).map(([k, v]) => [Number(k), v]));
    this.compositions = new Map(tables.nfc.compositions.map(([a, b, c]) => [`${a} ${b}`, c]));
  }

  isLetter = (point) => find(this.letters, point) !== undefined;
  isDigit = (point) => find(this.digits, point) !== undefined;
  isSpace = (point) => find(this.spaces, point) !== undefined;
  isOther = (point) => !this.isSpace(point) && !this.isLetter(point) && !this.isDigit(point);
  isWord = (point) => point === UNDERSCORE || this.isLetter(point) || this.isDigit(point);

  lower(point) {
    const special = this.lowerSpecial.get(point);
    if (special) return special;
    for (const [first, last, step, difference] of this.lowerRanges) {
      if (point >= first && point <= last && (point - first) % step === 0) return [point + difference];
    }
    return [point];
  }

  // Step 3: NFC, white space, lower case.
  normalize(list) {
    const spaced = [];
    for (const point of this.nfc(list)) {
      if (!this.isSpace(point)) spaced.push(point);
      else if (spaced.at(-1) !== 0x20) spaced.push(0x20);
    }
    return spaced.flatMap((point) => this.lower(point));
  }

  // Unicode Standard Annex 15: decompose, order, compose.
  nfc(list) {
    const apart = [];
    const decompose = (point) => {
      const syllable = point - 0xac00;
      if (syllable >= 0 && syllable < 11172) {
        apart.push(0x1100 + Math.floor(syllable / 588), 0x1161 + Math.floor((syllable % 588) / 28));
        if (syllable % 28) apart.push(0x11a7 + (syllable % 28));
      } else if (this.decompositions.has(point)) this.decompositions.get(point).forEach(decompose);
      else apart.push(point);
    };
    list.forEach(decompose);
    const order = apart.map((point) => find(this.classes, point)?.[2] ?? 0);
    for (let first = 0; first < apart.length; ) {
      let end = first;
      while (end < apart.length && order[end] !== 0) end++;
      const run = [];
      for (let i = first; i < end; i++) run.push([order[i], apart[i]]);
      run.sort((a, b) => a[0] - b[0]); // stable
      run.forEach(([c, point], i) => {
        order[first + i] = c;
        apart[first + i] = point;
      });
      first = end + 1;
    }
    const out = [];
    let starter = -1; // its place in `out`
    let last = 0; // the class of the last character that stayed behind the starter; -1: none did
    for (let i = 0; i < apart.length; i++) {
      const blocked = starter < 0 || (last !== -1 && last >= order[i]);
      const composed = blocked ? undefined : this.#compose(out[starter], apart[i]);
      if (composed !== undefined) out[starter] = composed;
      else {
        if (order[i] === 0) {
          starter = out.length;
          last = -1;
        } else last = order[i];
        out.push(apart[i]);
      }
    }
    return out;
  }

  #compose(a, b) {
    if (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176) return 0xac00 + ((a - 0x1100) * 21 + b - 0x1161) * 28;
    if (a >= 0xac00 && a < 0xd7a4 && (a - 0xac00) % 28 === 0 && b > 0x11a7 && b < 0x11c3) return a + b - 0x11a7;
    return this.compositions.get(`${a} ${b}`);
  }
}

// Step 5: the character of each byte.
const BYTE = (() => {
  const table = [];
  let extra = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.push(String.fromCodePoint(itself ? byte : extra++));
  }
  return table;
})();

export class ClipTokenizer {
  // `index` is an entry of the pipeline's `tokenizers`; the others are what its files hold.
  constructor(index, vocabulary, mergesText, characters) {
    this.index = index;
    this.characters = new Characters(characters);
    this.vocabulary = new Map(Object.entries(vocabulary));
    this.ranks = new Map();
    mergesText.split('\n').forEach((line, i) => {
      if (line === '' || (i === 0 && line.startsWith('#version'))) return;
      if (!this.ranks.has(line)) this.ranks.set(line, i);
    });
    const added = index.added_tokens.map((token) => ({ ...token, points: points(token.text) }));
    this.typed = added.filter((token) => !token.normalized);
    this.normalized = added.filter((token) => token.normalized);
    for (const token of this.normalized) token.points = this.characters.normalize(token.points);
    this.words = new Map();
  }

  // The ids of the text alone, with textual inversions of several vectors expanded.
  ids(prompt) {
    const first = this.#encode(prompt);
    let text = prompt;
    for (const id of new Set(first)) {
      for (const token of this.index.added_tokens) {
        if (token.id === id && token.expansion) text = text.replaceAll(token.text, () => token.expansion);
      }
    }
    return text === prompt ? first : this.#encode(text);
  }

  // What the graphs get (step 8), and the ids for which there was no room.
  input(prompt) {
    const { max_length: length, bos_id, eos_id, pad_id } = this.index;
    const all = this.ids(prompt);
    const kept = all.slice(0, length - 2);
    const ids = new Int32Array(length).fill(pad_id);
    ids.set([bos_id, ...kept, eos_id]);
    const mask = new Int32Array(length).fill(1, 0, kept.length + 2);
    return { ids, mask, cut: all.slice(length - 2) };
  }

  #encode(prompt) {
    const ids = [];
    for (const piece of this.#search(points(prompt), this.typed)) {
      if (piece.id !== undefined) ids.push(piece.id);
      else {
        for (const inner of this.#search(this.characters.normalize(piece.text), this.normalized)) {
          if (inner.id !== undefined) ids.push(inner.id);
          else for (const word of this.#split(inner.text)) ids.push(...this.#word(word));
        }
      }
    }
    return ids;
  }

  // Step 2: the text as a list of added tokens {id} and of stretches {text} between them.
  #search(text, tokens) {
    const pieces = [];
    const { isSpace, isWord } = this.characters;
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
      const stop = at + best.points.length;
      let from = at;
      let to = stop;
      at = stop;
      if (best.single_word && ((from > 0 && isWord(text[from - 1])) || (to < text.length && isWord(text[to])))) continue;
      if (best.lstrip) while (from > done && isSpace(text[from - 1])) from--;
      if (best.rstrip) while (to < text.length && isSpace(text[to])) to++;
      if (from > done) pieces.push({ text: text.slice(done, from) });
      pieces.push({ id: best.id });
      done = to;
      at = Math.max(at, to);
    }
    if (done < text.length) pieces.push({ text: text.slice(done) });
    return pieces;
  }

  // Step 4.
  #split(text) {
    const { isLetter, isDigit, isOther } = this.characters;
    const words = [];
    for (let at = 0; at < text.length; ) {
      let end = at;
      const fixed = WORDS.find((word) => startsAt(text, word, at));
      if (fixed) end = at + fixed.length;
      else if (isLetter(text[at])) while (end < text.length && isLetter(text[end])) end++;
      else if (isDigit(text[at])) end = at + 1;
      else while (end < text.length && isOther(text[end])) end++;
      if (end > at) words.push(text.slice(at, end));
      at = Math.max(end, at + 1);
    }
    return words;
  }

  // Steps 5 to 7 for one word.
  #word(word) {
    const text = String.fromCodePoint(...word);
    if (!this.words.has(text)) {
      const pieces = Array.from(new TextEncoder().encode(text), (byte) => BYTE[byte]);
      pieces.push(pieces.pop() + '</w>');
      this.words.set(text, this.#merge(pieces).map((p) => this.vocabulary.get(p) ?? this.index.unk_id).filter((id) => id !== null));
    }
    return this.words.get(text);
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
