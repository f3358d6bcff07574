/**
 * Preloaded into a relay (`node --import`): appends to the file FARPORT_TAP whatever its code reads from the streams that
 * peers open, behind the encryption that ends at the relay. It is what a relay that wants to listen can get at.
 */
import { appendFileSync } from 'node:fs'
import { Readable } from 'node:stream'

const file = process.env.FARPORT_TAP ?? ''
const { push } = Readable.prototype
Readable.prototype.push = function (this: Readable, chunk: unknown, encoding?: BufferEncoding) {
  if (this.constructor.name === 'StreamDuplex' && chunk instanceof Uint8Array) appendFileSync(file, chunk)
  return push.call(this, chunk, encoding)
}
