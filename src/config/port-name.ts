/** What peers call a port: up to 64 letters, digits, - _ and . */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/

export const FAMILY_DEVICE =
  'is one device, and a port with a * in its name is for many: usb:0403:* or /dev/serial/by-id/usb-FTDI* would be'

/** A port, or with one `*` a port for each of many devices, which stands there for what each is called. */
export function isPortName(name: string): boolean {
  return NAME.test(name) || (isFamilyName(name) && NAME.test(name.replace('*', 'x')))
}

export function isFamilyName(name: string): boolean {
  return name.includes('*')
}
