import type { OutputLines, PortSource, SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'

/** What a device's owner wants done each time it is opened, for its first user, and closed, behind its last. */
export interface PortHabits {
  readonly settings?: Readonly<Partial<SerialSettings>>
  readonly openLines?: Readonly<Partial<OutputLines>>
  readonly closeLines?: Readonly<Partial<OutputLines>>
  /** Sent to the device, as Latin-1. */
  readonly openString?: string
  readonly closeString?: string
}

/** How long the device has for what it is told at the end: a line that is held up must not keep the port from closing. */
const LAST_WORD_MS = 2_000

/** @throws FarportError as PortSource.open() does */
export async function openBy(
  { settings, openLines, openString }: PortHabits,
  source: PortSource,
  signal: AbortSignal,
): Promise<SerialPort> {
  const port = await source.open({
    signal,
    ...(settings && { settings }),
    ...(openLines && { outputs: openLines }),
  })
  try {
    if (openLines) await port.setLines(openLines)
    if (openString) port.write(Buffer.from(openString, 'latin1'))
    return port
  } catch (error) {
    port.destroy()
    throw error
  }
}

export async function closeBy({ closeLines, closeString }: PortHabits, port: SerialPort): Promise<void> {
  try {
    if (closeString && !port.destroyed) {
      port.write(Buffer.from(closeString, 'latin1'))
      await port.drain({ signal: AbortSignal.timeout(LAST_WORD_MS) }).catch(() => {})
    }
    if (closeLines && !port.destroyed) await port.setLines(closeLines)
  } catch {
    // A device that is gone has no last state.
  } finally {
    await port[Symbol.asyncDispose]()
  }
}
