import type { LineSettings, OutputLines, PurgeWhat } from './line.ts'
import { isKnown, type SetMessage } from './messages.ts'

/** The messages of `asked` are what the answer has to speak of, in their order. */
export interface ConfigureRequest {
  type: 'configure'
  /** What to set, all in one step; empty when the peer only asks, or asks for what does not exist. */
  change: Partial<LineSettings>
  asked: readonly SettingMessage[]
}

export interface LinesRequest {
  type: 'set-lines'
  /** What to set, both lines in one step; empty when the peer only asks. */
  change: Partial<OutputLines>
  asked: readonly LineMessage[]
}

export interface BreakRequest {
  type: 'set-break'
  on: boolean
  /** How often the client has asked for the state since: answered behind this one, with what it brought. */
  queriesBehind: number
}

export interface PurgeRequest {
  type: 'purge'
  what: PurgeWhat
}

/** What a client wants of the port. */
export type ServerRequest = ConfigureRequest | LinesRequest | BreakRequest | PurgeRequest

type LineMessage = SetMessage & { type: 'set-dtr' | 'set-rts' }
export type SettingMessage = Exclude<SetMessage, LineMessage | { type: 'set-break' }>
export type JoinableMessage = SettingMessage | LineMessage

/**
 * Makes one request of messages that came together: DTR and RTS of one step must move in one step (the reset circuits of
 * many boards work only so), and four settings that change together are one call to the driver.
 *
 * Gives undefined when the message can't join: it is of another kind, or something it touches has been touched already,
 * and then the order must show on the line (DTR on, DTR off is a pulse).
 */
export function joinRequest(
  open: ConfigureRequest | LinesRequest,
  message: JoinableMessage,
): ConfigureRequest | LinesRequest | undefined {
  const next = requestOf(message)
  if (open.type === 'configure' && next.type === 'configure') {
    if (open.asked.some((earlier) => collide(earlier, message))) return undefined
    return {
      type: 'configure',
      change: { ...open.change, ...next.change },
      asked: [...open.asked, ...next.asked],
    }
  }
  if (open.type === 'set-lines' && next.type === 'set-lines') {
    if (open.asked.some((earlier) => collide(earlier, message))) return undefined
    return {
      type: 'set-lines',
      change: { ...open.change, ...next.change },
      asked: [...open.asked, ...next.asked],
    }
  }
  return undefined
}

export function requestOf(message: JoinableMessage): ConfigureRequest | LinesRequest {
  switch (message.type) {
    case 'set-dtr':
      return linesRequest(message, isKnown(message.value) ? { dtr: message.value } : {})
    case 'set-rts':
      return linesRequest(message, isKnown(message.value) ? { rts: message.value } : {})
    case 'set-baud-rate':
      return configureRequest(message, isKnown(message.value) ? { baudRate: message.value } : {})
    case 'set-data-bits':
      return configureRequest(message, isKnown(message.value) ? { dataBits: message.value } : {})
    case 'set-parity':
      return configureRequest(message, isKnown(message.value) ? { parity: message.value } : {})
    case 'set-stop-bits':
      return configureRequest(message, isKnown(message.value) ? { stopBits: message.value } : {})
    case 'set-output-flow':
      return configureRequest(message, bothFlows(message.value))
    case 'set-input-flow':
      return configureRequest(message, isKnown(message.value) ? { inputFlow: message.value } : {})
    case 'set-control':
      return configureRequest(message, {})
  }
}

/**
 * The RFC's "outbound/both": where a word exists for both directions it sets both, and a client that wants them to differ
 * sets the inbound one afterwards. DCD and DSR exist outbound only.
 */
function bothFlows(value: (SetMessage & { type: 'set-output-flow' })['value']): Partial<LineSettings> {
  if (!isKnown(value)) return {}
  if (value === 'dcd' || value === 'dsr') return { outputFlow: value }
  return { outputFlow: value, inputFlow: value }
}

function configureRequest(message: SettingMessage, change: Partial<LineSettings>): ConfigureRequest {
  return { type: 'configure', change, asked: [message] }
}

function linesRequest(message: LineMessage, change: Partial<OutputLines>): LinesRequest {
  return { type: 'set-lines', change, asked: [message] }
}

/** Whether the later message must wait until the earlier one is done. */
function collide(earlier: SetMessage, later: SetMessage): boolean {
  if (later.type === 'set-output-flow' && earlier.type === 'set-input-flow') return true
  // What an unknown control asks for is answered with the outbound flow.
  if (later.type === 'set-output-flow' && earlier.type === 'set-control') return true
  return earlier.type === later.type
}
