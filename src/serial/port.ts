import type { Duplex } from 'node:stream'
import type { SerialSettings } from './settings.ts'

/** The lines we drive. `true` is asserted (the wire at positive voltage). */
export interface OutputLines {
  dtr: boolean
  rts: boolean
}

/** The lines the device drives. */
export interface InputLines {
  cts: boolean
  dsr: boolean
  ri: boolean
  dcd: boolean
}

/** How often each line changed since the last report: a pulse shorter than the look-out interval still counts. */
export type LineChanges = { [line in keyof InputLines]: number }

/** Errors on the line since the last report, each a count. */
export interface LineErrors {
  framing: number
  parity: number
  overrun: number
  break: number
}

/**
 * `open`: bytes flow. `absent`: the device is unplugged (or not there yet); the port waits for it, keeps settings, lines
 * and masks, and puts them back when it returns.
 */
export type PortState = 'open' | 'absent'

export type PurgeWhat = 'rx' | 'tx' | 'both'

/** What is at the far end of a port; all that is known without opening it. */
export interface PortDescription {
  /** What the port is called by its owner: a device path, a by-id link, `simulated:gps`. */
  path: string
  /** False where the device has no modem lines at all (a PTY, some CDC adapters). */
  modemLines: boolean
  /** The driver's name, when there is one. */
  driver?: string
  usb?: UsbIdentity
}

export interface UsbIdentity {
  /** Four hexadecimal digits, lower case. */
  vendorId: string
  productId: string
  serialNumber?: string
  manufacturer?: string
  product?: string
}

export interface SerialPortEvents {
  /** Input lines changed; `changes` counts edges per line, so that short pulses are not lost. */
  lines: [lines: InputLines, changes: LineChanges]
  lineErrors: [errors: LineErrors]
  /** Settings changed other than by our own `configure()`: another user of a shared port, or the device itself. */
  settings: [settings: SerialSettings]
  state: [state: PortState]
}

/**
 * A serial port: a byte stream plus settings, lines, break, purge and events. Everything that is a serial port implements
 * it (hardware, a simulated device, a remote port), everything that uses one takes it. `test/compliance/serial-port.ts`
 * says in code what each implementation must keep.
 *
 * As a stream: reads are what the device sent, writes go to the device, `destroy()` closes. A write whose callback is
 * outstanding (flow control, a full UART) never stops reads. `end()` closes once the written bytes are out; `await using`
 * closes at once. The stream does
 * not end by itself when the device goes away (see PortState); it errors only when the port can't be had again.
 */
export interface SerialPort extends Duplex {
  readonly description: PortDescription
  readonly state: PortState
  /** In force now. */
  readonly settings: Readonly<SerialSettings>
  readonly outputs: Readonly<OutputLines>
  readonly lines: Readonly<InputLines>

  /**
   * Changes what is named, leaves the rest, and answers with the settings in force: what the device could not do is
   * answered honestly, never thrown. Does not reopen the device, move a line, or lose received bytes.
   */
  configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>>

  /**
   * Sets the named lines in one step (two lines named together change together) and answers with the state in force. A
   * port without modem lines answers with the state asked for and remembers it: see `description.modemLines`.
   */
  setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>>

  /** Break on (the line held at space) until break off. Devices that can't are left alone. */
  setBreak(on: boolean): Promise<void>

  /**
   * Throws away bytes not yet read (`rx`), bytes not yet sent (`tx`), or both, here and in the driver. A write that was
   * held up by a blocked line completes.
   */
  purge(what: PurgeWhat): Promise<void>

  /** Resolves once everything written so far has left the device; rejects with the signal's reason. */
  drain(options?: { signal?: AbortSignal }): Promise<void>

  on<E extends keyof SerialPortEvents>(event: E, listener: (...args: SerialPortEvents[E]) => void): this
  // biome-ignore lint/suspicious/noExplicitAny: the stream's own signature, which an interface must repeat to add to it.
  on(event: string | symbol, listener: (...args: any[]) => void): this
  once<E extends keyof SerialPortEvents>(event: E, listener: (...args: SerialPortEvents[E]) => void): this
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  once(event: string | symbol, listener: (...args: any[]) => void): this
  off<E extends keyof SerialPortEvents>(event: E, listener: (...args: SerialPortEvents[E]) => void): this
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  off(event: string | symbol, listener: (...args: any[]) => void): this
}

/** Where ports come from: something that can be shared. */
export interface PortSource {
  readonly description: PortDescription
  /** Whether the device is there now, found out without opening it (opening can reset a board). */
  present(): Promise<boolean>
  /**
   * Opens the port, exclusively where the system allows it. `outputs` are lines to move at once: where opening raises them,
   * they fall again as soon as the system lets one. Sources without such a moment leave that to `setLines()`.
   * @throws FarportError ERR_DEVICE_ABSENT when it is not there, ERR_PORT_BUSY when another program holds it.
   */
  open(options: {
    settings?: Partial<SerialSettings>
    outputs?: Partial<OutputLines>
    signal?: AbortSignal
  }): Promise<SerialPort>
}
