/** What programs may build on. It grows as the parts settle; until 1.0 anything may still change. */
export { type ErrorCode, FarportError } from './errors.ts'
export { farportBinding } from './library/binding.ts'
export { type Farport, type FarportOptions, type OpenPortOptions, openFarport } from './library/farport.ts'
export { serialPortOf } from './library/serialport.ts'
export type {
  InputLines,
  LineChanges,
  LineErrors,
  OutputLines,
  PortDescription,
  PortSource,
  PortState,
  PurgeWhat,
  SerialPort,
  SerialPortEvents,
  UsbIdentity,
} from './serial/port.ts'
export type {
  DataBits,
  InputFlow,
  OutputFlow,
  Parity,
  SerialSettings,
  StopBits,
} from './serial/settings.ts'
