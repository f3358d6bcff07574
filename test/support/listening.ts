import { readFileSync } from 'node:fs'
import { until } from './until.ts'

/** Waits until a program listens on this port of 127.0.0.1. Asked by connecting, it would open its device, and be busy. */
export function listening(port: number): Promise<void> {
  const line = new RegExp(`: 0100007F:${port.toString(16).toUpperCase().padStart(4, '0')} \\S+ 0A `)
  return until(`something listens on port ${port}`, () => line.test(readFileSync('/proc/net/tcp', 'latin1')))
}
