// Noise as torch's CPU generator makes it (BUNDLE.md, section 8): the engine mt19937, and two ways
// to normal values, one for 16 values and more, one for fewer.

export class Generator {
  // `seed` is a string (or BigInt) of an integer from -2^63 to 2^64-1; its lowest 32 bits count.
  constructor(seed) {
    const wide = BigInt(seed);
    if (wide < -(2n ** 63n) || wide >= 2n ** 64n) throw new Error(`seed ${seed} is out of range`);
    const state = new Uint32Array(624);
    state[0] = Number(BigInt.asUintN(32, wide));
    for (let i = 1; i < 624; i++) {
      const previous = state[i - 1] ^ (state[i - 1] >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
    this.state = state;
    this.next = 624;
    this.kept = null; // the second value of a pair
  }

  word() {
    const state = this.state;
    if (this.next === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let y = state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  normal(count) {
    const values = new Float32Array(count);
    if (count < 16) {
      for (let i = 0; i < count; i++) values[i] = this.#single();
      return values;
    }
    for (let i = 0; i < count; i++) values[i] = this.#uniform24();
    for (let i = 0; i + 16 <= count; i += 16) block(values, i);
    if (count % 16) {
      for (let i = count - 16; i < count; i++) values[i] = this.#uniform24();
      block(values, count - 16);
    }
    return values;
  }

  #uniform24() {
    return (this.word() & 0xffffff) * 2 ** -24;
  }

  #uniform53() {
    const high = this.word() & 0x1fffff;
    return (high * 2 ** 32 + this.word()) * 2 ** -53;
  }

  #single() {
    if (this.kept !== null) {
      const value = this.kept;
      this.kept = null;
      return value;
    }
    const u1 = this.#uniform53();
    const r = Math.sqrt(-2 * Math.log1p(-this.#uniform53()));
    this.kept = r * Math.sin(2 * Math.PI * u1);
    return r * Math.cos(2 * Math.PI * u1);
  }
}

// Sixteen uniform values at `at` become normal ones, in place.
function block(values, at) {
  const twoPi = Math.fround(2 * Math.PI);
  for (let i = at; i < at + 8; i++) {
    const r = Math.sqrt(-2 * Math.log1p(-values[i]));
    const t = Math.fround(values[i + 8] * twoPi);
    values[i] = r * Math.cos(t);
    values[i + 8] = r * Math.sin(t);
  }
}
