/**
 * Timed sequences of DTR and RTS, by which boards are reset, and how a client's own steps are told apart from others.
 *
 *   sequence = step *( "/" step )          dtr-rts+/100ms/dtr+rts-/50ms/dtr-
 *   step     = 1*line | wait               lines of one step change together
 *   line     = ( "dtr" | "rts" ) ( "+" | "-" )
 *   wait     = milliseconds "ms"
 *
 * `+` is asserted. No comma and nothing that a shell or YAML minds.
 */
import { FarportError } from '../errors.ts'
import type { OutputLines } from './port.ts'

export type Step =
  | { readonly type: 'lines'; readonly change: Readonly<Partial<OutputLines>> }
  | { readonly type: 'wait'; readonly ms: number }

/** A state on the way of a client's steps. `via`: one that a client shows only if it moves the lines one by one. */
export interface Waypoint {
  readonly lines: Readonly<Partial<OutputLines>>
  readonly via: boolean
}

/** What starts a sequence: steps of the client's own that look like it, or a speed that is set. */
type Trigger =
  | { readonly type: 'steps'; readonly path: readonly Waypoint[] }
  | { readonly type: 'baud'; readonly baudRate: number }

export interface ResetProfile {
  /** As its owner wrote it: `esp32`, or a whole sequence. */
  readonly name: string
  readonly trigger: Trigger
  readonly steps: readonly Step[]
}

/** Whole sequences, waits and all: a client waits 3 s for an answer at most, and the sequence comes before it. */
const MAX_SEQUENCE_MS = 1_500
const MAX_STEPS = 32
const MAX_TEXT = 256

/** EN is low while RTS is asserted and DTR is not, GPIO0 is low while DTR is and RTS is not. */
const ESP32 = 'dtr-rts+/100ms/dtr+rts-/50ms/dtr-rts-'

/** The USB peripheral of the ESP32-C3 and later takes it as a reset when it goes by both lines asserted. */
const ESP32_USB = 'dtr-rts-/100ms/dtr+rts-/100ms/dtr+rts+/dtr-rts+/100ms/dtr-rts-'

/** DTR must fall while the speed is 1200; the falling is what the board acts on. */
const ARDUINO_1200 = 'dtr+/50ms/dtr-'

const PROFILES: Readonly<Record<string, () => Omit<ResetProfile, 'name'>>> = {
  esp32: () => ofSteps(parseSteps(ESP32)),
  // A client can't see over RFC 2217 that a board has this peripheral, so it makes the steps for the other circuit.
  'esp32-usb': () => ({ ...ofSteps(parseSteps(ESP32)), steps: parseSteps(ESP32_USB) }),
  'arduino-1200': () => ({ trigger: { type: 'baud', baudRate: 1200 }, steps: parseSteps(ARDUINO_1200) }),
}

/**
 * What `reset=` says: a profile's name, a sequence, or `off`, which gives undefined.
 * @throws FarportError ERR_USAGE
 */
export function parseReset(text: string): ResetProfile | undefined {
  if (text === 'off') return undefined
  const profile = Object.hasOwn(PROFILES, text) ? PROFILES[text] : undefined
  if (profile !== undefined) return { name: text, ...profile() }
  if (text.length > MAX_TEXT) throw wrong(`is longer than ${MAX_TEXT} characters`)
  const parsed = ofSteps(parseSteps(text))
  if (parsed.trigger.path.length < 2)
    throw wrong('has to move a line at least twice: a client is recognised by it')
  return { name: text, ...parsed }
}

function ofSteps(steps: readonly Step[]) {
  return { trigger: { type: 'steps' as const, path: pathOf(steps) }, steps }
}

function parseSteps(text: string): Step[] {
  const words = text.split('/')
  if (words.length > MAX_STEPS) throw wrong(`has more than ${MAX_STEPS} steps`)
  const steps = words.map(parseStep)
  const waitMs = steps.reduce((sum, step) => sum + (step.type === 'wait' ? step.ms : 0), 0)
  if (waitMs > MAX_SEQUENCE_MS) throw wrong(`takes longer than ${MAX_SEQUENCE_MS} ms`)
  return steps
}

function parseStep(word: string): Step {
  const [, ms] = /^(\d{1,4})ms$/.exec(word) ?? []
  if (ms !== undefined) return { type: 'wait', ms: Number(ms) }
  if (!/^(?:(?:dtr|rts)[+-]){1,2}$/.test(word)) throw wrong(`has the step “${word}”`)
  const lines = [...word.matchAll(/(dtr|rts)([+-])/g)].map(([, line, sign]) => [line, sign === '+'] as const)
  const change: Partial<OutputLines> = Object.fromEntries(lines)
  if (Object.keys(change).length < lines.length) throw wrong(`has one line twice in the step “${word}”`)
  return { type: 'lines', change }
}

/**
 * The states that a client goes through when it makes these steps itself. Where both lines move, all known clients move
 * DTR first when they can't move them together.
 */
function pathOf(steps: readonly Step[]): Waypoint[] {
  const path: Waypoint[] = []
  for (const step of steps) {
    if (step.type === 'wait') continue
    const before = path.at(-1)?.lines
    const lines = { ...before, ...step.change }
    if (before !== undefined && before.dtr === lines.dtr && before.rts === lines.rts) continue
    if (before !== undefined && before.dtr !== lines.dtr && before.rts !== lines.rts)
      path.push({ lines: { ...before, dtr: lines.dtr as boolean }, via: true })
    path.push({ lines, via: false })
  }
  return path
}

function wrong(what: string): FarportError {
  return new FarportError(
    'ERR_USAGE',
    `reset= ${what}: write ${Object.keys(PROFILES).join(', ')}, off, or a sequence like ${ESP32}`,
  )
}
