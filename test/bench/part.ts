import type { StackName } from './stacks.ts'

/** One of the things that the bench measures. */
export interface Part {
  /** Its key in the results. */
  readonly name: string
  /** By which it, or pieces of it, can be asked for alone. */
  readonly names: readonly string[]
  /** Why it can't be measured on this machine. */
  whyNot?(): string | undefined
  measure(run: Run): Promise<Measured>
}

export interface Run {
  /** Those of the part's names that are asked for: at least one. */
  readonly names: readonly string[]
  /** Those that this machine can have and that are asked for. */
  readonly stacks: readonly StackName[]
  /** Names that were given in so many words; empty when all is asked for. */
  readonly only: readonly string[]
  /** Also what takes long. */
  readonly all: boolean
  readonly rounds: number
  readonly trips: number
  readonly mib: number
  /** For figures that are taken over a time. */
  readonly seconds: number
  /** Tells how it goes. */
  say(text: string): void
}

export interface Measured {
  readonly results: object
  /** The same for people to read. */
  readonly lines: readonly string[]
  readonly bars: readonly Reached[]
}

/** At most or at least so much. */
export type Bar = `${'≤' | '≥'} ${string}`

export interface Reached {
  readonly figure: string
  readonly value: number
  /** Of the value; a ratio when it is ×. */
  readonly unit: string
  readonly bar: Bar
  readonly reached: boolean
}

export function reached(figure: string, value: number, unit: string, bar: Bar): Reached {
  const limit = Number(bar.slice(2))
  return { figure, value, unit, bar, reached: bar.startsWith('≤') ? value <= limit : value >= limit }
}
