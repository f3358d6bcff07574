import type { Heard } from './probe-connection.ts'
import { baudRateIn, type Setting } from './probe-table.ts'

/**
 * `refused`: an answer as it should be, by which the server keeps another value in force, which the RFC allows. `wrong` is
 * an answer that means something else, or that costs the connection.
 */
export type ProbeVerdict = 'right' | 'refused' | 'wrong' | 'silent'

export interface ProbeFinding {
  readonly request: string
  readonly answer: string
  readonly verdict: ProbeVerdict
  /** What a user feels of it; a sentence without its end. */
  readonly breaks?: string
}

/** What is found, in order. */
export class ProbeFindings {
  readonly all: ProbeFinding[] = []
  readonly #onBroken: () => void

  /** `onBroken` is told when the connection is of no use any more. */
  constructor(onBroken: () => void) {
    this.#onBroken = onBroken
  }

  right(request: string, answer: string): void {
    this.all.push({ request, answer, verdict: 'right' })
  }

  wrong(request: string, answer: string, breaks: string): void {
    this.all.push({ request, answer, verdict: 'wrong', breaks })
  }

  refused(request: string, inForce: string): void {
    const breaks = 'this port has no such setting, or the server does not know it'
    this.all.push({ request, answer: `stays at ${inForce}`, verdict: 'refused', breaks })
  }

  silent(request: string, breaks: string, answer = 'nothing'): void {
    this.all.push({ request, answer, verdict: 'silent', breaks })
  }

  /** No answer. */
  none(heard: Heard, request: string, breaks: string): void {
    if (heard.closed) this.broken(heard, request)
    else this.silent(request, breaks)
  }

  /** No answer, or one that is about something else. */
  noneOf(heard: Heard, { code }: Setting, request: string, breaks: string): void {
    const other = heard.payloads.findLast(([c]) => c === code + 100)
    if (heard.closed || other === undefined) this.none(heard, request, breaks)
    else this.wrong(request, answerText(other.subarray(1)), breaks)
  }

  broken({ closed }: Heard, request: string): void {
    this.#onBroken()
    const answer = closed ? 'the connection is closed' : 'no answers any more on this connection'
    this.wrong(request, answer, 'a program that asks this loses the port')
  }
}

export function answerText(value: Uint8Array): string {
  return value.length === 4 ? `${baudRateIn(value)}` : Array.from(value).join(' ') || 'empty'
}
