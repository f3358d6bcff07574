import type { BindingInterface, BindingPortInterface, OpenOptions, PortInfo } from '@serialport/bindings-cpp'
import { FarportError } from '../errors.ts'
import type { SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import type { Farport } from './farport.ts'

type SetOptions = Parameters<BindingPortInterface['set']>[0]

/**
 * What serialport opens ports with, for the ports of peers: `path` is PEER/PORT. `list()` asks all peers;
 * one that can't be reached has no ports.
 */
export function farportBinding(farport: Farport): BindingInterface {
  return {
    async list() {
      const lists = await Promise.all(farport.peers().map((peer) => portsOf(farport, peer)))
      return lists.flat()
    },
    async open(options) {
      const port = await farport.open(options.path)
      try {
        return await RemoteBindingPort.open(port, options)
      } catch (error) {
        port.destroy()
        throw error
      }
    },
  }
}

async function portsOf(farport: Farport, peer: string): Promise<PortInfo[]> {
  try {
    return (await farport.ports(peer)).map(({ name, description: { usb } }) => ({
      path: `${peer}/${name}`,
      manufacturer: usb?.manufacturer,
      serialNumber: usb?.serialNumber,
      pnpId: undefined,
      locationId: undefined,
      vendorId: usb?.vendorId,
      productId: usb?.productId,
    }))
  } catch (error) {
    if (error instanceof FarportError) return []
    throw error
  }
}

/** By `canceled` serialport tells a port that was closed from one that was lost. */
class CanceledError extends Error {
  readonly canceled = true
}

class RemoteBindingPort implements BindingPortInterface {
  readonly openOptions: Required<OpenOptions>
  readonly #port: SerialPort
  readonly #closing = new AbortController()
  #failure: Error | undefined
  #wake = () => {}
  #breaking = false

  private constructor(port: SerialPort, openOptions: Required<OpenOptions>) {
    this.#port = port
    this.openOptions = openOptions
    port.on('error', (error) => {
      this.#failure = error
    })
    port.on('readable', () => this.#wake()).on('close', () => this.#wake())
  }

  /** @throws FarportError ERR_UNFIT when the device can't have the line asked for */
  static async open(port: SerialPort, options: OpenOptions): Promise<RemoteBindingPort> {
    const full: Required<OpenOptions> = {
      ...{ dataBits: 8, lock: true, stopBits: 1, parity: 'none', rtscts: false },
      ...{ xon: false, xoff: false, xany: false, hupcl: true },
      ...options,
    }
    const opened = new RemoteBindingPort(port, full)
    const { baudRate, dataBits, stopBits, rtscts, xon, xoff } = full
    await opened.#configure({
      ...{ baudRate, dataBits, stopBits, parity: full.parity as SerialSettings['parity'] },
      outputFlow: rtscts ? 'rtscts' : xon ? 'xonxoff' : 'none',
      inputFlow: rtscts ? 'rtscts' : xoff ? 'xonxoff' : 'none',
    })
    return opened
  }

  /** Stays true for a port that was lost, so that serialport finds out by its next read and closes it. */
  isOpen = true

  async close(): Promise<void> {
    this.#mustBeOpen()
    this.isOpen = false
    this.#closing.abort(new CanceledError('Canceled'))
    this.#wake()
    await this.#port[Symbol.asyncDispose]()
  }

  async read(buffer: Buffer, offset: number, length: number): Promise<{ buffer: Buffer; bytesRead: number }> {
    this.#mustBeOpen()
    for (;;) {
      if (!this.isOpen) throw new CanceledError('Canceled')
      if (this.#port.destroyed) throw this.#failure ?? new Error('The port was closed')
      const waiting = Math.min(length, this.#port.readableLength)
      const bytes: Buffer | null = waiting > 0 ? this.#port.read(waiting) : null
      if (bytes !== null) {
        bytes.copy(buffer, offset)
        return { buffer, bytesRead: bytes.length }
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        // Asks the stream for more.
        this.#port.read(0)
      })
    }
  }

  async write(buffer: Buffer): Promise<void> {
    this.#mustBeOpen()
    await new Promise<void>((resolve, reject) => {
      this.#port.write(buffer, (error) => {
        if (!error) resolve()
        else reject(this.isOpen ? (this.#failure ?? error) : new CanceledError('Canceled'))
      })
    })
  }

  async update({ baudRate }: { baudRate: number }): Promise<void> {
    this.#mustBeOpen()
    await this.#configure({ baudRate })
  }

  async set({ dtr, rts, brk }: SetOptions): Promise<void> {
    this.#mustBeOpen()
    if (dtr !== undefined || rts !== undefined)
      await this.#port.setLines({ ...(dtr !== undefined && { dtr }), ...(rts !== undefined && { rts }) })
    if (brk === undefined || brk === this.#breaking) return
    await this.#port.setBreak(brk)
    this.#breaking = brk
  }

  async get(): Promise<{ cts: boolean; dsr: boolean; dcd: boolean }> {
    this.#mustBeOpen()
    const { cts, dsr, dcd } = this.#port.lines
    return { cts, dsr, dcd }
  }

  async getBaudRate(): Promise<{ baudRate: number }> {
    this.#mustBeOpen()
    return { baudRate: this.#port.settings.baudRate }
  }

  async flush(): Promise<void> {
    this.#mustBeOpen()
    await this.#port.purge('both')
  }

  async drain(): Promise<void> {
    this.#mustBeOpen()
    await this.#port.drain({ signal: this.#closing.signal })
  }

  async #configure(wanted: Partial<SerialSettings>): Promise<void> {
    const inForce = await this.#port.configure(wanted)
    for (const key of ['baudRate', 'dataBits', 'parity', 'stopBits'] as const)
      if (wanted[key] !== undefined && wanted[key] !== inForce[key])
        throw new FarportError(
          'ERR_UNFIT',
          `${this.openOptions.path} can not have ${key} ${wanted[key]}: it is ${inForce[key]}`,
        )
  }

  #mustBeOpen(): void {
    if (!this.isOpen) throw new Error('Port is not open')
  }
}
