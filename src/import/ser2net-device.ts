import type { Place, PortDraft } from './draft.ts'
import { type LineWish, lineText, takeSpeedWord } from './line-wish.ts'
import { isOff, isOn, takeFlow } from './ser2net-options.ts'

/** Words behind a device, of ser2net 3 (`9600 8DATABITS NONE 1STOPBIT`) and 4 (`9600n81,local`), as they read on a line. */
export interface DeviceWords {
  readonly line: LineWish
  /** DTR and RTS as they are to be when the port is opened. */
  readonly onOpen: { dtr?: boolean; rts?: boolean }
  hangUp: boolean
}

const V3_PARITY: Readonly<Record<string, LineWish['parity']>> = {
  none: 'N',
  even: 'E',
  odd: 'O',
  mark: 'M',
  space: 'S',
}

/** Takes a word that is about the device. False for one that is about something else. */
export function takeDeviceWord(
  words: DeviceWords,
  word: string,
  place: Place,
  port: Pick<PortDraft, 'leaveOut'>,
): boolean {
  const { line } = words
  const [, minus, name = '', said] = /^(-?)([^=]*)(?:=([\s\S]*))?$/.exec(word.toLowerCase()) ?? []
  const value = minus === '-' ? 'false' : (said ?? '')
  const at = { ...place, what: word }
  if (name === 'speed' ? takeSpeedWord(line, value) : takeSpeedWord(line, word)) return true
  const v3Bits = /^([5-8])databits$/.exec(name)?.[1]
  const v3Stop = /^([12])stopbits?$/.exec(name)?.[1]
  if (v3Bits !== undefined) line.dataBits = v3Bits as LineWish['dataBits']
  else if (v3Stop !== undefined) line.stopBits = v3Stop as LineWish['stopBits']
  else if (said === undefined && Object.hasOwn(V3_PARITY, name))
    line.parity = V3_PARITY[name] as LineWish['parity']
  else
    switch (name) {
      case 'rtscts':
      case 'xonxoff':
        line[name] = isOn(value)
        break
      case 'dtr':
      case 'rts':
        if (!isOn(value) && !isOff(value)) return false
        words.onOpen[name] = isOn(value)
        break
      case 'hangup-when-done':
      case 'hangup_when_done':
        words.hangUp = isOn(value)
        break
      case 'local':
        if (isOff(value))
          port.leaveOut(at, 'farport opens a port whatever its modem lines say; clients see them')
        break
      case 'nobreak':
      case 'custspeed':
      case 'nouucplock':
      case 'readbuf':
      // Whoever may configure may do so over RFC 2217: that is what a farport port is.
      case 'remctl':
        break
      case 'rs485':
        if (!isOff(value))
          port.leaveOut(
            at,
            'farport does not switch RS-485 drivers: an adapter that does so by itself is needed',
          )
        break
      case 'wronly':
        if (isOn(value)) port.leaveOut(at, 'farport opens devices for reading and writing')
        break
      case 'drain_time':
      case 'char_drain_wait':
        port.leaveOut(at, 'farport decides by itself how long what was written may take')
        break
      default:
        return false
    }
  return true
}

/** Sets what the words have said. */
export function takeDeviceWords(port: PortDraft, { line, onOpen, hangUp }: DeviceWords, place: Place): void {
  if (Object.keys(onOpen).length > 0) port.set('on-open', onOpen, { ...place, what: 'dtr, rts' })
  if (hangUp) port.set('on-close', { dtr: false, rts: false }, { ...place, what: 'hangup-when-done' })
  port.set('line', lineText(line), { ...place, what: 'line' })
  takeFlow(port, line, { ...place, what: 'flow control' })
}
