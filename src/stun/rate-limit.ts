/** How many events a second are let through for long, and how many at once after a quiet time. */
export interface Rate {
  perSecond: number
  burst: number
}

interface Bucket {
  tokens: number
  filledAtMs: number
}

/**
 * Lets events through at a rate per source and a rate in all. Knows the latest `maxSources` sources: where they are more,
 * the one longest known is forgotten, and the rate in all is what still holds.
 */
export class RateLimit {
  readonly #perSource: Rate
  readonly #total: Rate
  readonly #maxSources: number
  readonly #nowMs: () => number
  readonly #sources = new Map<string, Bucket>()
  readonly #all: Bucket

  constructor(options: { perSource: Rate; total: Rate; maxSources: number; nowMs?: () => number }) {
    this.#perSource = options.perSource
    this.#total = options.total
    this.#maxSources = options.maxSources
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#all = { tokens: options.total.burst, filledAtMs: this.#nowMs() }
  }

  /** How many sources are remembered now. */
  get sources(): number {
    return this.#sources.size
  }

  /** Whether one more event of this source may pass; counts it if so. */
  take(source: string): boolean {
    const nowMs = this.#nowMs()
    let bucket = this.#sources.get(source)
    if (bucket === undefined) {
      const [oldest] = this.#sources.keys()
      if (this.#sources.size >= this.#maxSources && oldest !== undefined) this.#sources.delete(oldest)
      bucket = { tokens: this.#perSource.burst, filledAtMs: nowMs }
      this.#sources.set(source, bucket)
    }
    fill(bucket, this.#perSource, nowMs)
    fill(this.#all, this.#total, nowMs)
    // The source's own limit first: who is over it takes nothing from the others.
    if (bucket.tokens < 1 || this.#all.tokens < 1) return false
    bucket.tokens--
    this.#all.tokens--
    return true
  }
}

function fill(bucket: Bucket, { perSecond, burst }: Rate, nowMs: number): void {
  bucket.tokens = Math.min(burst, bucket.tokens + ((nowMs - bucket.filledAtMs) * perSecond) / 1000)
  bucket.filledAtMs = nowMs
}
