import type { Logger } from '../log.ts'
import type { InputLines, LineChanges, OutputLines, SerialPort } from '../serial/port.ts'

/** Which inputs of one port drive an output of another: it is up while one of them is. */
export type PinMap = Readonly<Record<keyof OutputLines, readonly (keyof InputLines)[]>>

export const LOWERED: Readonly<OutputLines> = { dtr: false, rts: false }
const RAISED: Readonly<OutputLines> = { dtr: true, rts: true }

/**
 * Lets the inputs of one port drive the outputs of another, from now until it is disposed of. While `from` is absent they
 * are low; while it is there and has no modem lines they are up, as a cable with three wires has them bridged.
 */
export class CrossedLines implements Disposable {
  readonly #from: SerialPort
  readonly #to: SerialPort
  readonly #pins: PinMap
  readonly #log: Logger

  constructor(from: SerialPort, to: SerialPort, pins: PinMap, log: Logger) {
    this.#from = from
    this.#to = to
    this.#pins = pins
    this.#log = log
    from.on('lines', this.#onLines).on('state', this.#onState)
    this.update()
  }

  /** Says again how they are: who drives RTS and DTR may have changed with the flow control. */
  update(): void {
    this.#drive(this.#wanted())
  }

  [Symbol.dispose](): void {
    this.#from.off('lines', this.#onLines).off('state', this.#onState)
  }

  readonly #onState = (): void => this.update()

  /** A pulse that is over already is made here, too: two edges or more, and the level is what it was. */
  readonly #onLines = (lines: InputLines, changes: LineChanges): void => {
    const wanted = this.#wanted()
    const outputs = Object.keys(wanted) as (keyof OutputLines)[]
    const pulsed = outputs.filter(
      (output) => this.#to.outputs[output] === wanted[output] && isPulse(this.#pins[output], lines, changes),
    )
    this.#drive(Object.fromEntries(pulsed.map((output) => [output, !wanted[output]])))
    this.#drive(wanted)
  }

  #wanted(): Partial<OutputLines> {
    const { state, description, lines } = this.#from
    if (state === 'absent') return LOWERED
    if (!description.modemLines) return RAISED
    const isUp = (inputs: readonly (keyof InputLines)[]) => inputs.some((input) => lines[input])
    return { dtr: isUp(this.#pins.dtr), rts: isUp(this.#pins.rts) }
  }

  /** Calls are carried out in their order, so nothing has to wait for the last one. */
  #drive({ dtr, rts }: Partial<OutputLines>): void {
    const { outputs, settings, destroyed } = this.#to
    const change = {
      ...(dtr !== undefined && dtr !== outputs.dtr && settings.inputFlow !== 'dtr' && { dtr }),
      ...(rts !== undefined && rts !== outputs.rts && settings.inputFlow !== 'rtscts' && { rts }),
    }
    if (destroyed || Object.keys(change).length === 0) return
    this.#to.setLines(change).catch((err) => this.#log.debug({ err }, 'the lines could not be set'))
  }
}

function isPulse(inputs: readonly (keyof InputLines)[], lines: InputLines, changes: LineChanges): boolean {
  const moved = (input: keyof InputLines) => changes[input] > 1
  return inputs.some(moved) && inputs.every((input) => moved(input) || !lines[input])
}
