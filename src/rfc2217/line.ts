/**
 * What RFC 2217 can say about a serial line, as values. The words are declared here and not imported, so that this folder
 * depends on nothing but telnet.
 */
export type DataBits = 5 | 6 | 7 | 8
export type Parity = 'none' | 'odd' | 'even' | 'mark' | 'space'
export type StopBits = 1 | 1.5 | 2
/** What may hold back the bytes that go to the device. */
export type OutputFlow = 'none' | 'xonxoff' | 'rtscts' | 'dcd' | 'dsr'
/** How the device is held back. */
export type InputFlow = 'none' | 'xonxoff' | 'rtscts' | 'dtr'

export interface LineSettings {
  /** Bits per second, 1 to 4,294,967,295. */
  baudRate: number
  dataBits: DataBits
  parity: Parity
  stopBits: StopBits
  outputFlow: OutputFlow
  inputFlow: InputFlow
}

/** The lines that the port drives; `true` is asserted. */
export interface OutputLines {
  dtr: boolean
  rts: boolean
}

/** The lines that the device drives. */
export interface InputLines {
  cts: boolean
  dsr: boolean
  ri: boolean
  dcd: boolean
}

/** Edges per line since the last report. */
export type LineChanges = { [line in keyof InputLines]: number }

/** Errors since the last report, each a count. */
export interface LineErrors {
  framing: number
  parity: number
  overrun: number
  break: number
}

/** `rx` is what the device sent and nobody has read, `tx` what is on its way to the device. */
export type PurgeWhat = 'rx' | 'tx' | 'both'
