import { FarportError } from '../errors.ts'
import type { DataBits, Parity, SerialSettings, StopBits } from './settings.ts'

/** How characters look on a line, and how fast they go, where that is said. */
export type LineFormat = Readonly<
  Pick<SerialSettings, 'dataBits' | 'parity' | 'stopBits'> & Partial<Pick<SerialSettings, 'baudRate'>>
>

const PARITIES: Readonly<Record<string, Parity>> = { N: 'none', O: 'odd', E: 'even', M: 'mark', S: 'space' }
const MAX_BAUD_RATE = 0xffff_ffff

/**
 * `7E1`, or with the speed in front `9600-7E1`: data bits 5 to 8, parity N O E M S, stop bits 1, 1.5 or 2.
 * @throws FarportError ERR_USAGE
 */
export function parseLineFormat(text: string): LineFormat {
  const [, speed, dataBits, letter = '', stopBits] =
    /^(?:([1-9]\d{0,9})-)?([5-8])([NOEMS])(1|1\.5|2)$/i.exec(text) ?? []
  const parity = PARITIES[letter.toUpperCase()]
  if (parity === undefined || Number(speed ?? 1) > MAX_BAUD_RATE)
    throw new FarportError(
      'ERR_USAGE',
      `“${text}” is no line: write data bits, parity (N, O, E, M or S) and stop bits, as in 7E1, with the speed in front where it matters, as in 9600-7E1.`,
    )
  return {
    ...(speed !== undefined && { baudRate: Number(speed) }),
    dataBits: Number(dataBits) as DataBits,
    parity,
    stopBits: Number(stopBits) as StopBits,
  }
}
