export type DataBits = 5 | 6 | 7 | 8
export type Parity = 'none' | 'odd' | 'even' | 'mark' | 'space'
export type StopBits = 1 | 1.5 | 2
/** What may hold back the bytes we send. The words are RFC 2217's (SET-CONTROL 1-3, 17, 19). */
export type OutputFlow = 'none' | 'xonxoff' | 'rtscts' | 'dcd' | 'dsr'
/** How we hold back the bytes the device sends (SET-CONTROL 14-16, 18). */
export type InputFlow = 'none' | 'xonxoff' | 'rtscts' | 'dtr'

/** Everything about a serial line that is set and stays set. */
export interface SerialSettings {
  /** Bits per second, 1 to 4,294,967,295; the driver may know fewer. */
  baudRate: number
  dataBits: DataBits
  parity: Parity
  stopBits: StopBits
  outputFlow: OutputFlow
  inputFlow: InputFlow
}

/** What a port gets when nobody says otherwise: the field's habit, 9600 8N1 without flow control. */
export const DEFAULT_SETTINGS: Readonly<SerialSettings> = {
  baudRate: 9600,
  dataBits: 8,
  parity: 'none',
  stopBits: 1,
  outputFlow: 'none',
  inputFlow: 'none',
}

const PARITY_LETTERS: Record<Parity, string> = { none: 'N', odd: 'O', even: 'E', mark: 'M', space: 'S' }

/** "115200 8N1", with the flow control behind it where there is any. */
export function formatSettings(s: SerialSettings): string {
  const flow =
    s.outputFlow === s.inputFlow
      ? s.outputFlow === 'none'
        ? ''
        : ` ${s.outputFlow}`
      : ` out:${s.outputFlow} in:${s.inputFlow}`
  return `${s.baudRate} ${s.dataBits}${PARITY_LETTERS[s.parity]}${s.stopBits}${flow}`
}
