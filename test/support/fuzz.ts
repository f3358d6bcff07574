/**
 * A mutation fuzzer that is fast enough for a million inputs: valid samples in, damaged ones out. fast-check shrinks what
 * it finds and costs some hundred microseconds a case; this one prints its seed and the input.
 *
 *   FARPORT_FUZZ_RUNS=1000000 FARPORT_FUZZ_SEED=1 node --test test/trust/fuzz.test.ts
 */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { type TestContext, test } from 'node:test'

/** How many inputs each target gets. */
const RUNS = process.env.FARPORT_FUZZ_RUNS === undefined ? undefined : Number(process.env.FARPORT_FUZZ_RUNS)
const DEFAULT_RUNS = 2000
const SEED = Number(process.env.FARPORT_FUZZ_SEED ?? randomInt(1, 2 ** 32))

/** One input may take so much of the processor. */
const MAX_CASE_MS = 100
/** What took longer by the clock is measured again: most likely the machine was busy elsewhere. */
const SUSPECT_MS = 10
const CHANCES = 3
/** What a target may add to the resident memory, where nothing is kept: V8's own heaps breathe. */
const MAX_GROWTH_BYTES = 96 * 1024 * 1024
const SAMPLE_EVERY = 1024

export interface FuzzTarget {
  /** Valid inputs, from which the others are made. */
  corpus: readonly Uint8Array[]
  /** What the format's grammar is made of. */
  tokens?: readonly (string | Uint8Array)[]
  /** No input is longer. Default 2048. */
  maxBytes?: number
  /** A share of the inputs keeps the length of its sample. Default 0.3. */
  sameLength?: number
  /** Tries one input, asserts what must hold whatever it is, and says how far it got. */
  run(input: Uint8Array, random: Random): string | Promise<string>
  /** Which share of the inputs must get there, so that not all die at the first check. */
  reach: Readonly<Record<string, number>>
}

/**
 * Declares the test of one target. `make` runs before the first input, `runs` is for everyday, and `share` is the
 * target's part of FARPORT_FUZZ_RUNS.
 */
export function fuzz(
  name: string,
  make: (t: TestContext) => FuzzTarget | Promise<FuzzTarget>,
  { runs = DEFAULT_RUNS, share = 1 } = {},
): void {
  test(`${name}: whatever the bytes, no crash, no hang, no more memory`, async (t) => {
    await fuzzAll(t, await make(t), RUNS === undefined ? runs : Math.ceil(RUNS * share))
  })
}

async function fuzzAll(t: TestContext, target: FuzzTarget, runs: number): Promise<void> {
  const random = new Random(SEED)
  const mutator = new Mutator(target, random)
  const reached = new Map<string, number>()
  const startedAt = performance.now()
  let startRss = process.memoryUsage.rss()
  let peakRss = startRss
  let worstMs = 0
  for (let i = 0; i < runs; i++) {
    const input = mutator.next()
    const where = () => `seed ${SEED}, input ${i}: ${Buffer.from(input).toString('hex')}`
    const at = performance.now()
    let got: string
    try {
      const result = target.run(input, random)
      got = typeof result === 'string' ? result : await result
    } catch (cause) {
      throw new Error(`${cause instanceof Error ? cause.message : String(cause)}\n${where()}`, { cause })
    }
    let tookMs = performance.now() - at
    if (tookMs > SUSPECT_MS) tookMs = await processorMs(target, input)
    worstMs = Math.max(worstMs, tookMs)
    if (worstMs > MAX_CASE_MS) assert.fail(`one input takes ${worstMs} ms, ${where()}`)
    reached.set(got, (reached.get(got) ?? 0) + 1)
    if (i % SAMPLE_EVERY === 0) {
      const rss = process.memoryUsage.rss()
      // Until the code is compiled and the heaps have their size, growth says nothing.
      if (i <= runs / 10) startRss = Math.max(startRss, rss)
      peakRss = Math.max(peakRss, rss)
      await new Promise(setImmediate)
    }
  }
  const shares = Object.fromEntries(
    [...reached].sort(([, a], [, b]) => b - a).map(([got, count]) => [got, +(count / runs).toFixed(4)]),
  )
  t.diagnostic(
    JSON.stringify({
      seed: SEED,
      runs,
      seconds: +((performance.now() - startedAt) / 1000).toFixed(1),
      worstMs: +worstMs.toFixed(2),
      startRssMiB: startRss >> 20,
      peakRssMiB: peakRss >> 20,
      shares,
    }),
  )
  for (const [got, share] of Object.entries(target.reach))
    assert.ok((shares[got] ?? 0) >= share, `too few inputs (${shares[got] ?? 0}) got as far as "${got}"`)
  const growth = peakRss - startRss
  assert.ok(growth <= MAX_GROWTH_BYTES, `${growth} bytes more than at the start`)
}

/** The best of several, since garbage is collected at any time. */
async function processorMs(target: FuzzTarget, input: Uint8Array): Promise<number> {
  const taken: number[] = []
  for (let i = 0; i < CHANCES; i++) {
    const before = process.threadCpuUsage()
    await target.run(Uint8Array.from(input), new Random(1))
    const { user, system } = process.threadCpuUsage(before)
    taken.push((user + system) / 1000)
  }
  return Math.min(...taken)
}

/** xorshift32 (Marsaglia 2003): poor randomness, the same on every machine, and free. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  next(): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return this.#state
  }

  below(limit: number): number {
    return this.next() % limit
  }

  chance(share: number): boolean {
    return this.next() < share * 2 ** 32
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let i = 0; i < length; i++) bytes[i] = this.next() >>> 11
    return bytes
  }
}

const BORDERS = [0x00, 0x01, 0x0a, 0x0d, 0x20, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff]
const LENGTHS = [0, 1, 2, 15, 16, 17, 255, 256, 1023, 1024, 1025, 4096, 4097, 0x7fff, 0x8000, 0xffff]

class Mutator {
  readonly #random: Random
  readonly #corpus: readonly Uint8Array[]
  readonly #tokens: readonly Uint8Array[]
  readonly #maxBytes: number
  readonly #sameLength: number

  constructor({ corpus, tokens = [], maxBytes = 2048, sameLength = 0.3 }: FuzzTarget, random: Random) {
    this.#random = random
    this.#corpus = corpus
    this.#tokens = [
      ...tokens.map((token) => (typeof token === 'string' ? Buffer.from(token) : token)),
      ...BORDERS.map((byte) => Uint8Array.of(byte)),
    ]
    this.#maxBytes = maxBytes
    this.#sameLength = sameLength
  }

  next(): Uint8Array {
    const random = this.#random
    if (random.chance(0.02)) return random.bytes(random.below(Math.min(this.#maxBytes, 256)))
    const steps = 1 + (random.chance(0.5) ? random.below(5) : 0)
    const inPlace = random.chance(this.#sameLength)
    let bytes: Uint8Array = Uint8Array.from(random.pick(this.#corpus))
    for (let i = 0; i < steps; i++) {
      if (inPlace || random.chance(0.3)) this.#overwrite(bytes)
      else bytes = this.#reshape(bytes)
    }
    return bytes.length > this.#maxBytes ? bytes.subarray(0, this.#maxBytes) : bytes
  }

  #overwrite(bytes: Uint8Array): void {
    const random = this.#random
    if (bytes.length === 0) return
    const at = random.below(bytes.length)
    switch (random.below(5)) {
      case 0:
        bytes[at] = (bytes[at] as number) ^ (1 << random.below(8))
        break
      case 1:
        bytes[at] = random.below(256)
        break
      case 2:
        bytes[at] = random.pick(BORDERS)
        break
      case 3: {
        const length = random.pick(LENGTHS)
        bytes[at] = length >> 8
        if (at + 1 < bytes.length) bytes[at + 1] = length & 0xff
        break
      }
      case 4: {
        const token = random.pick(this.#tokens)
        bytes.set(token.subarray(0, bytes.length - at), at)
        break
      }
    }
  }

  #reshape(bytes: Uint8Array): Uint8Array {
    const random = this.#random
    const at = random.below(bytes.length + 1)
    const to = at + random.below(bytes.length - at + 1)
    const before = bytes.subarray(0, at)
    switch (random.below(6)) {
      case 0:
        return before
      case 1:
        return Buffer.concat([before, bytes.subarray(to)])
      case 2: {
        const piece = bytes.subarray(at, to)
        const copies = 1 + (random.chance(0.1) ? Math.floor(this.#maxBytes / (piece.length + 1)) : 1)
        return Buffer.concat([before, ...Array<Uint8Array>(copies).fill(piece), bytes.subarray(to)])
      }
      case 3:
        return Buffer.concat([before, random.pick(this.#tokens), bytes.subarray(at)])
      case 4:
        return Buffer.concat([before, random.bytes(random.below(16)), bytes.subarray(at)])
      default: {
        const other = random.pick(this.#corpus)
        return Buffer.concat([before, other.subarray(random.below(other.length + 1))])
      }
    }
  }
}
