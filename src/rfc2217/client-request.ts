import type { InputFlow, LineSettings, OutputFlow, OutputLines, PurgeWhat } from './line.ts'
import { isKnown, type Message } from './messages.ts'

/** What a server has said to be in force; only what it has said. */
export type InForce = Partial<LineSettings & OutputLines & { break: boolean }>

export type ClientRequest =
  /**
   * `outputFlow` without `inputFlow` sets both, where the word exists for both: the RFC has no code for the outbound
   * direction alone. Name both to have them differ.
   */
  | { type: 'configure'; change: Readonly<Partial<LineSettings>> }
  | { type: 'set-lines'; change: Readonly<Partial<OutputLines>> }
  | { type: 'set-break'; on: boolean }
  /** Asks for what is in force. */
  | { type: 'query'; what: readonly (keyof InForce)[] }
  | { type: 'purge'; what: PurgeWhat }
  /** Which bits of the notifications are wanted; see modem-state.ts and line-state.ts. */
  | { type: 'set-masks'; modemState?: number; lineState?: number }

/** What a message and its reply are about. */
export type Subject = keyof InForce | 'purge' | 'modemStateMask' | 'lineStateMask'

/** One message to the server, which brings one reply. */
export interface Question {
  subject: Subject
  message: Message
}

const SUBJECTS = [
  'baudRate',
  'dataBits',
  'parity',
  'stopBits',
  // Outbound flow control goes first: it may set both directions, which the inbound one then corrects.
  'outputFlow',
  'inputFlow',
  'dtr',
  'rts',
  'break',
] as const satisfies readonly (keyof InForce)[]

/** The messages of a request, in the order in which they must go. */
export function questions(request: ClientRequest): Question[] {
  switch (request.type) {
    case 'configure':
    case 'set-lines':
      return settingQuestions(request.change)
    case 'set-break':
      return settingQuestions({ break: request.on })
    case 'query':
      return SUBJECTS.filter((subject) => request.what.includes(subject)).map((subject) => ({
        subject,
        message: QUERIES[subject],
      }))
    case 'purge':
      return [{ subject: 'purge', message: { type: 'purge', value: request.what } }]
    case 'set-masks': {
      const { modemState, lineState } = request
      const masks: Question[] = []
      if (modemState !== undefined)
        masks.push({
          subject: 'modemStateMask',
          message: { type: 'set-modem-state-mask', value: modemState },
        })
      if (lineState !== undefined)
        masks.push({ subject: 'lineStateMask', message: { type: 'set-line-state-mask', value: lineState } })
      return masks
    }
  }
}

const QUERIES: Record<keyof InForce, Message> = {
  baudRate: { type: 'set-baud-rate', value: 'query' },
  dataBits: { type: 'set-data-bits', value: 'query' },
  parity: { type: 'set-parity', value: 'query' },
  stopBits: { type: 'set-stop-bits', value: 'query' },
  outputFlow: { type: 'set-output-flow', value: 'query' },
  inputFlow: { type: 'set-input-flow', value: 'query' },
  dtr: { type: 'set-dtr', value: 'query' },
  rts: { type: 'set-rts', value: 'query' },
  break: { type: 'set-break', value: 'query' },
}

function settingQuestions(set: InForce): Question[] {
  const asked: Question[] = []
  for (const subject of SUBJECTS) {
    const value = set[subject]
    // A subject's setting is its query with a value: the types of `set` and QUERIES belong together key by key.
    if (value !== undefined) asked.push({ subject, message: { ...QUERIES[subject], value } as Message })
  }
  return asked
}

/**
 * What a server means that answers a control with the flow control. Of a flow control it may mean that one, as far as the
 * word exists there; a line or a break it has set as asked.
 */
export function inForceByOtherReply(asked: Message, flow: OutputFlow | InputFlow | undefined): InForce {
  switch (asked.type) {
    case 'set-dtr':
      return isKnown(asked.value) ? { dtr: asked.value } : {}
    case 'set-rts':
      return isKnown(asked.value) ? { rts: asked.value } : {}
    case 'set-break':
      return isKnown(asked.value) ? { break: asked.value } : {}
    case 'set-output-flow':
      return flow === undefined || flow === 'dtr' ? {} : { outputFlow: flow }
    case 'set-input-flow':
      return flow === undefined || flow === 'dcd' || flow === 'dsr' ? {} : { inputFlow: flow }
    default:
      return {}
  }
}
