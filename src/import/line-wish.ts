/** How a serial line is to be, put together from words of another program. */
export interface LineWish {
  baudRate?: number
  dataBits: '5' | '6' | '7' | '8'
  parity: 'N' | 'E' | 'O' | 'M' | 'S'
  stopBits: '1' | '1.5' | '2'
  rtscts: boolean
  xonxoff: boolean
}

/** 8N1 without flow control, as every program begins. */
export function plainLine(baudRate?: number): LineWish {
  return {
    ...(baudRate !== undefined && { baudRate }),
    dataBits: '8',
    parity: 'N',
    stopBits: '1',
    rtscts: false,
    xonxoff: false,
  }
}

/** In the words of farport.yaml: `9600-8N1`. */
export function lineText({ baudRate, dataBits, parity, stopBits }: LineWish): string {
  return `${baudRate === undefined ? '' : `${baudRate}-`}${dataBits}${parity}${stopBits}`
}

/** `9600n81`: speed, parity, data bits, stop bits, each but the speed optional. False when it is none. */
export function takeSpeedWord(wish: LineWish, word: string): boolean {
  const [, speed, parity, dataBits, stopBits] =
    /^([1-9]\d{0,8})(?:([neoms])(?:([5-8])([12])?)?)?$/i.exec(word) ?? []
  if (speed === undefined) return false
  wish.baudRate = Number(speed)
  if (parity !== undefined) wish.parity = parity.toUpperCase() as LineWish['parity']
  if (dataBits !== undefined) wish.dataBits = dataBits as LineWish['dataBits']
  if (stopBits !== undefined) wish.stopBits = stopBits as LineWish['stopBits']
  return true
}

/** For how long a line is busy with so many characters: each has a start bit, the data bits, parity and stop bits. */
export function charactersMs(
  { baudRate = 9600, dataBits, parity, stopBits }: LineWish,
  count: number,
): number {
  const bits = 1 + Number(dataBits) + (parity === 'N' ? 0 : 1) + Number(stopBits)
  return (count * bits * 1000) / baudRate
}
