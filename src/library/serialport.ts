import { SerialPort, type SerialPortOpenOptions } from 'serialport'
import { farportBinding } from './binding.ts'
import type { Farport } from './farport.ts'

type Options = SerialPortOpenOptions<typeof SerialPort.binding>

/**
 * serialport's own class for the ports of peers: `new SerialPort({ path: 'workshop/gps', baudRate: 9600 })`. `list()` names
 * the ports of all peers.
 */
export function serialPortOf(farport: Farport): typeof SerialPort {
  const binding = farportBinding(farport)
  const FarSerialPort = class extends SerialPort {
    static override list = () => binding.list()

    constructor(options: Options, openCallback?: (error: Error | null) => void) {
      // The package's types fix the binding; its class takes the one it is given.
      const bound: Options = Object.assign({}, options, { binding })
      super(bound, openCallback)
    }
  }
  // The package's types name one platform's binding; this is another.
  return FarSerialPort as unknown as typeof SerialPort
}
