import type { ResetProfile, Step, Waypoint } from './line-sequence.ts'
import type { OutputLines } from './port.ts'

/** What is to be done on the port. */
export type Action =
  | { readonly type: 'set'; readonly change: Readonly<Partial<OutputLines>> }
  /** The profile's steps are to be made, and then this. */
  | { readonly type: 'run'; readonly afterwards: Readonly<Partial<OutputLines>> }
  | { readonly type: 'nothing' }

type State =
  | { readonly state: 'idle' }
  /** The lines are where the pattern begins. */
  | { readonly state: 'begun'; readonly untilMs: number }
  /** The sequence has been run. The client goes on with its own steps, and is at this one of the path. */
  | { readonly state: 'following'; readonly at: number; readonly untilMs: number }

/** A client that makes no further step of a pattern for so long is not making it. */
export const PATTERN_MS = 3_000

const NOTHING: Action = { type: 'nothing' }

/**
 * Sees in what a client does to the lines that it wants to reset the board. Its steps go through until they show that;
 * then the whole sequence is run in their place, and those that still belong to it have no effect. Afterwards, or as soon
 * as the client does something else, the lines are as it says.
 *
 * Time is passed in, in milliseconds that only go forward.
 */
export class LineRecogniser {
  readonly #profile: ResetProfile
  #state: State = { state: 'idle' }
  #outputs: OutputLines
  /** Lines that the port may have otherwise than the client set them. */
  #behind: Partial<OutputLines> = {}

  constructor(profile: ResetProfile, outputs: Readonly<OutputLines>) {
    this.#profile = profile
    this.#outputs = { ...outputs }
  }

  /** The lines as the client has set them. */
  get outputs(): Readonly<OutputLines> {
    return { ...this.#outputs }
  }

  /** Until when to wait for the client's next step. */
  get untilMs(): number | undefined {
    return this.#state.state === 'following' ? this.#state.untilMs : undefined
  }

  /** The client sets lines. */
  setLines(change: Readonly<Partial<OutputLines>>, nowMs: number): Action {
    this.#outputs = { ...this.#outputs, ...change }
    const state = this.#state
    switch (state.state) {
      case 'idle':
        break
      case 'begun': {
        if (nowMs >= state.untilMs) break
        if (this.#isAt(0)) return { type: 'set', change }
        const at = this.#next(0)
        if (at !== undefined) return this.#run(at, nowMs, change)
        break
      }
      case 'following': {
        this.#behind = { ...this.#behind, ...change }
        if (nowMs < state.untilMs) {
          const at = this.#next(state.at) ?? (this.#isAt(state.at) ? state.at : undefined)
          if (at !== undefined && at < this.#last) {
            this.#state = { ...state, at }
            return NOTHING
          }
        }
        const action = this.#catchUp()
        // The last step belongs to this pattern; anything else may begin another.
        if (!this.#isAt(this.#last)) this.#begin(nowMs)
        return action
      }
      default:
        state satisfies never
    }
    this.#begin(nowMs)
    return { type: 'set', change }
  }

  /** The client has set this speed. */
  setBaudRate(baudRate: number, nowMs: number): Action {
    const { trigger } = this.#profile
    if (trigger.type !== 'baud') return NOTHING
    const following = this.#state.state === 'following' && nowMs < this.#state.untilMs
    if (baudRate === trigger.baudRate) return following ? NOTHING : this.#run(0, nowMs, {})
    return following ? this.#catchUp() : NOTHING
  }

  /** Time passes. */
  expire(nowMs: number): Action {
    return this.#state.state === 'following' && nowMs >= this.#state.untilMs ? this.#catchUp() : NOTHING
  }

  get #path(): readonly Waypoint[] {
    const { trigger, steps } = this.#profile
    // Behind a change of speed the lines may go any way, until they are where the sequence has left them.
    return trigger.type === 'steps'
      ? trigger.path
      : [
          { lines: {}, via: false },
          { lines: linesOf(steps), via: false },
        ]
  }

  get #last(): number {
    return this.#path.length - 1
  }

  #isAt(index: number): boolean {
    const wanted = this.#path[index]?.lines
    return (
      wanted !== undefined &&
      (wanted.dtr ?? this.#outputs.dtr) === this.#outputs.dtr &&
      (wanted.rts ?? this.#outputs.rts) === this.#outputs.rts
    )
  }

  /** The next step, where the client has made it. */
  #next(at: number): number | undefined {
    const step = at + 1
    if (this.#isAt(step)) return step
    return this.#path[step]?.via && this.#isAt(step + 1) ? step + 1 : undefined
  }

  #begin(nowMs: number): void {
    this.#state =
      this.#profile.trigger.type === 'steps' && this.#isAt(0)
        ? { state: 'begun', untilMs: nowMs + PATTERN_MS }
        : { state: 'idle' }
  }

  #run(at: number, nowMs: number, change: Readonly<Partial<OutputLines>>): Action {
    const touched = linesOf(this.#profile.steps)
    this.#behind = {
      ...this.#behind,
      ...change,
      ...('dtr' in touched && { dtr: this.#outputs.dtr }),
      ...('rts' in touched && { rts: this.#outputs.rts }),
    }
    if (this.#profile.trigger.type === 'steps' && at === this.#last) {
      return { type: 'run', afterwards: this.#catchUp().change }
    }
    this.#state = { state: 'following', at, untilMs: nowMs + PATTERN_MS }
    return { type: 'run', afterwards: {} }
  }

  #catchUp(): Action & { type: 'set' } {
    const change = this.#behind
    this.#behind = {}
    this.#state = { state: 'idle' }
    return { type: 'set', change }
  }
}

/** Where steps leave the lines that they touch. */
function linesOf(steps: readonly Step[]): Partial<OutputLines> {
  let lines: Partial<OutputLines> = {}
  for (const step of steps) if (step.type === 'lines') lines = { ...lines, ...step.change }
  return lines
}
