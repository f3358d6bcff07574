import { ConfigError, parseConfigFile } from '../config/config-file.ts'
import { FarportError } from '../errors.ts'

/** More than one machine has serial ports. */
const MAX_ENTRIES = 1024
/** Longer than any path, banner or address is. */
export const MAX_TEXT = 4096

/** Something that was asked for there and is not here. */
export interface LeftOut {
  /** From 1. */
  readonly line: number
  readonly what: string
  /** Why, and what to do instead. */
  readonly why: string
}

/** What a setting is in farport.yaml. */
export type Value = string | number | boolean | { readonly [key: string]: Value }

/** One shared port or one link as it comes about. */
export interface Entry {
  /** Where it comes from, for people. */
  readonly comments: readonly string[]
  readonly settings: Readonly<Record<string, Value>>
}

/** Where in the input something stands, and what it is called there. */
export interface Place {
  readonly line: number
  readonly what: string
}

/**
 * A farport.yaml as it comes about. Each setting is tried on farport.yaml's own schema: what that refuses is told as left
 * out, so that a draft is always one that farport reads.
 */
export class Draft {
  readonly #ports = new Map<string, { comments: string[]; settings: Record<string, Value> }>()
  readonly #links: { comments: string[]; settings: Record<string, Value> }[] = []
  readonly #leftOut: LeftOut[] = []

  get ports(): ReadonlyMap<string, Entry> {
    return this.#ports
  }

  get links(): readonly Entry[] {
    return this.#links
  }

  /** In the order of the input. */
  get leftOut(): readonly LeftOut[] {
    return this.#leftOut.toSorted((a, b) => a.line - b.line)
  }

  leaveOut({ line, what }: Place, why: string): void {
    this.#leftOut.push({ line, what, why })
  }

  /**
   * A port to share.
   * @param wanted what it is called there; made into a name that farport takes and that no other port has
   * @returns undefined when it could not be taken, which is told
   */
  addPort(wanted: string, device: string, place: Place, comments: string[]): PortDraft | undefined {
    if (!this.#hasRoom(place)) return undefined
    const wrong = refusal({ ports: { p: { device } } })
    if (wrong !== undefined || device.length > MAX_TEXT) {
      this.leaveOut(place, `device ${wrong ?? 'is too long'}`)
      return undefined
    }
    const entry = { comments, settings: { device } }
    this.#ports.set(this.#freeName(wanted), entry)
    return new PortDraft(this, entry.settings)
  }

  /** A port of another machine; told as left out when farport.yaml would not take it. */
  addLink(settings: Record<string, Value>, place: Place, comments: string[]): void {
    if (!this.#hasRoom(place)) return
    const wrong = refusal({ links: [settings] })
    if (wrong === undefined) this.#links.push({ comments, settings })
    else this.leaveOut(place, `as a link it would be wrong: ${wrong}`)
  }

  #hasRoom(place: Place): boolean {
    if (this.#ports.size + this.#links.length < MAX_ENTRIES) return true
    this.leaveOut(place, `there are ${MAX_ENTRIES} ports and links already`)
    return false
  }

  #freeName(wanted: string): string {
    const base = nameOf(wanted)
    if (!this.#ports.has(base)) return base
    for (let n = 2; ; n++) {
      const name = `${base.slice(0, 58)}-${n}`
      if (!this.#ports.has(name)) return name
    }
  }
}

/** What is set on one shared port. */
export class PortDraft {
  readonly #draft: Draft
  readonly #settings: Record<string, Value>

  constructor(draft: Draft, settings: Record<string, Value>) {
    this.#draft = draft
    this.#settings = settings
  }

  /** Takes a setting over, or tells why not. True when it was taken. */
  set(key: string, value: Value, place: Place): boolean {
    const wrong = refusal({ ports: { p: { device: '/dev/null', [key]: value } } })
    if (wrong === undefined) this.#settings[key] = value
    else this.#draft.leaveOut(place, instead(wrong, key, value))
    return wrong === undefined
  }

  leaveOut(place: Place, why: string): void {
    this.#draft.leaveOut(place, why)
  }
}

/** Letters, digits, - _ and ., beginning with a letter or digit, as farport names ports and peers. */
export function nameOf(text: string): string {
  const name = text.replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '')
  return name.slice(0, 64) || 'port'
}

/** What to do where this farport.yaml has no key for it. */
const INSTEAD: Readonly<Record<string, string>> = {
  flow: 'programs ask for flow control themselves, through a PTY or RFC 2217',
  'idle-timeout': 'farport lets go of a port when its client is gone; one that sits there idle keeps it',
  banner: 'farport sends a program only what the device has sent',
  'open-string': 'farport writes nothing to a device by itself',
  'close-string': 'farport writes nothing to a device by itself',
  'on-open': 'programs set DTR and RTS themselves, through RFC 2217',
  'on-close': 'programs set DTR and RTS themselves, through RFC 2217',
  capture:
    'farport keeps no file of its own: farport connect PEER/PORT --watch --stdio shows the same to a program',
}

function instead(wrong: string, key: string, value: Value): string {
  if (!wrong.startsWith('there is no such key')) return `${key} ${wrong}`
  if (key === 'line') return `the client says it: line: ${value} in its link, or the program by RFC 2217`
  if (key === 'pack' && typeof value === 'object')
    return `farport share takes it: ${Object.entries(value)
      .map(([name, each]) => `pack.${name}=${each}`)
      .join(',')}`
  return (Object.hasOwn(INSTEAD, key) && INSTEAD[key]) || `farport.yaml has no ${key} for a port`
}

/** What farport.yaml's schema has against it. JSON is YAML, too. */
function refusal(file: object): string | undefined {
  try {
    parseConfigFile(JSON.stringify(file), 'farport.yaml')
    return undefined
  } catch (error) {
    if (error instanceof ConfigError) return error.problems[0]?.message ?? error.message
    if (error instanceof FarportError) return error.message
    throw error
  }
}
