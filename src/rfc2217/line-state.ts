import type { LineErrors } from './line.ts'

/** What NOTIFY-LINESTATE carries: the line status register of a PC's UART. */
export interface LineState {
  timeout: boolean
  transmitterEmpty: boolean
  holdingRegisterEmpty: boolean
  break: boolean
  framing: boolean
  parity: boolean
  overrun: boolean
  dataReady: boolean
}

const BITS: Record<keyof LineState, number> = {
  timeout: 0x80,
  transmitterEmpty: 0x40,
  holdingRegisterEmpty: 0x20,
  break: 0x10,
  framing: 0x08,
  parity: 0x04,
  overrun: 0x02,
  dataReady: 0x01,
}

export function lineStateBits(state: LineState): number {
  let bits = 0
  for (const name of Object.keys(BITS) as (keyof LineState)[]) if (state[name]) bits |= BITS[name]
  return bits
}

export function lineStateOf(bits: number): LineState {
  const has = (name: keyof LineState) => (bits & BITS[name]) !== 0
  return {
    timeout: has('timeout'),
    transmitterEmpty: has('transmitterEmpty'),
    holdingRegisterEmpty: has('holdingRegisterEmpty'),
    break: has('break'),
    framing: has('framing'),
    parity: has('parity'),
    overrun: has('overrun'),
    dataReady: has('dataReady'),
  }
}

/** The bits of the errors that happened at all: the wire has no counts. */
export function errorBits(errors: LineErrors): number {
  let bits = 0
  for (const name of ['framing', 'parity', 'overrun', 'break'] as const)
    if (errors[name] > 0) bits |= BITS[name]
  return bits
}

/** Each error that is told counts as one. */
export function errorsOf(state: LineState): LineErrors {
  return {
    framing: Number(state.framing),
    parity: Number(state.parity),
    overrun: Number(state.overrun),
    break: Number(state.break),
  }
}
