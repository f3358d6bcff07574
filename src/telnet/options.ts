/**
 * Option negotiation by the Q method of RFC 1143: what makes sure that two ends agree on an option and that neither
 * answers for ever. Each option is negotiated twice and independently: what we do (WILL, answered by DO) and what the
 * peer does (DO, answered by WILL).
 */
import { DO, DONT, type Verb, WILL, WONT } from './bytes.ts'
import { concat, negotiate } from './encoder.ts'

/** Whose behaviour an option describes. */
export type Side = 'local' | 'remote'

/**
 * RFC 1143's states. `want-…`: we asked and wait for the answer; `…-opposite`: meanwhile we changed our mind, and ask the
 * opposite once the answer is there (its queue bit). `refused` is its NO after we have said so: said again only after the
 * peer took the request back, since a peer that insists would otherwise get an answer for ever.
 */
type State = 'no' | 'refused' | 'yes' | 'want-no' | 'want-no-opposite' | 'want-yes' | 'want-yes-opposite'

/** The state after a step and, if something has to be sent, whether it is a yes or a no. */
interface Step {
  state: State
  say?: boolean
}

export interface OptionChange {
  side: Side
  option: number
  /** `refused`: we asked for it and the peer said no. */
  to: 'on' | 'off' | 'refused'
}

export class TelnetOptions {
  readonly #agreed: Record<Side, ReadonlySet<number>>
  /** At most 256 options a side: a peer can't make it grow. */
  readonly #states: Record<Side, Map<number, State>> = { local: new Map(), remote: new Map() }

  /** The options to agree to when the peer asks for them: `local` to do ourselves, `remote` to let the peer do. */
  constructor(agreed: { local: Iterable<number>; remote: Iterable<number> }) {
    this.#agreed = { local: new Set(agreed.local), remote: new Set(agreed.remote) }
  }

  isOn(side: Side, option: number): boolean {
    return this.#state(side, option) === 'yes'
  }

  /** Asks for an option to be on; gives the bytes to send, none if it is on, or asked for, already. */
  enable(side: Side, ...options: number[]): Uint8Array {
    return concat(options.map((option) => this.#ask(side, option, true)))
  }

  /** The opposite of `enable`. */
  disable(side: Side, ...options: number[]): Uint8Array {
    return concat(options.map((option) => this.#ask(side, option, false)))
  }

  /** Takes a negotiation from the peer. `reply` are the bytes to send, often none. */
  receive(verb: Verb, option: number): { reply: Uint8Array; change?: OptionChange } {
    const side = verb === WILL || verb === WONT ? 'remote' : 'local'
    const yes = verb === WILL || verb === DO
    const before = this.#state(side, option)
    const step = yes ? heardYes(before, this.#agreed[side].has(option)) : heardNo(before)
    const reply = this.#enter(side, option, step)
    const to = changed(before, step.state)
    return to ? { reply, change: { side, option, to } } : { reply }
  }

  #state(side: Side, option: number): State {
    return this.#states[side].get(option) ?? 'no'
  }

  #ask(side: Side, option: number, on: boolean): Uint8Array {
    const before = this.#state(side, option)
    return this.#enter(side, option, on ? askOn(before) : askOff(before))
  }

  #enter(side: Side, option: number, { state, say }: Step): Uint8Array {
    this.#states[side].set(option, state)
    if (say === undefined) return new Uint8Array(0)
    if (side === 'local') return negotiate(say ? WILL : WONT, option)
    return negotiate(say ? DO : DONT, option)
  }
}

function heardYes(state: State, agree: boolean): Step {
  switch (state) {
    case 'no':
      return agree ? { state: 'yes', say: true } : { state: 'refused', say: false }
    case 'refused':
      return { state }
    case 'yes':
      return { state }
    case 'want-no':
      // A no answered by a yes: the peer is in error. RFC 1143 lets our no stand.
      return { state: 'no' }
    case 'want-no-opposite':
      // The same error, only that by now a yes is what we want.
      return { state: 'yes' }
    case 'want-yes':
      return { state: 'yes' }
    case 'want-yes-opposite':
      return { state: 'want-no', say: false }
  }
}

function heardNo(state: State): Step {
  switch (state) {
    case 'no':
    case 'refused':
      return { state: 'no' }
    case 'yes':
      return { state: 'no', say: false }
    case 'want-no':
      return { state: 'no' }
    case 'want-no-opposite':
      return { state: 'want-yes', say: true }
    case 'want-yes':
    case 'want-yes-opposite':
      return { state: 'no' }
  }
}

function askOn(state: State): Step {
  switch (state) {
    case 'no':
    case 'refused':
      return { state: 'want-yes', say: true }
    case 'want-no':
      return { state: 'want-no-opposite' }
    case 'want-yes-opposite':
      return { state: 'want-yes' }
    case 'yes':
    case 'want-yes':
    case 'want-no-opposite':
      return { state }
  }
}

function askOff(state: State): Step {
  switch (state) {
    case 'yes':
      return { state: 'want-no', say: false }
    case 'want-yes':
      return { state: 'want-yes-opposite' }
    case 'want-no-opposite':
      return { state: 'want-no' }
    case 'no':
    case 'refused':
    case 'want-no':
    case 'want-yes-opposite':
      return { state }
  }
}

function changed(before: State, after: State): OptionChange['to'] | undefined {
  if (after === 'yes') return before === 'yes' ? undefined : 'on'
  if (before === 'yes' || before === 'want-no' || before === 'want-no-opposite') {
    return after === 'no' || after === 'want-yes' ? 'off' : undefined
  }
  return before === 'want-yes' && after === 'no' ? 'refused' : undefined
}
