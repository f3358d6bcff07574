import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'

/** Random bytes, every value among them, in chunks of odd sizes. */
function* randomChunks(total: number, hash: ReturnType<typeof createHash>): Generator<Buffer> {
  for (let left = total, i = 0; left > 0; i++) {
    const chunk =
      i === 0
        ? Buffer.from(Array.from({ length: Math.min(256, left) }, (_, b) => b))
        : randomBytes(Math.min(left, 1 + ((i * 7919) % 16_384)))
    hash.update(chunk)
    left -= chunk.length
    yield chunk
  }
}

/** Sends `total` random bytes into `to` and resolves with their hash once all are handed over. */
export async function send(
  to: Writable,
  total: number,
  onProgress?: (sent: number) => void,
): Promise<string> {
  const hash = createHash('sha256')
  let sent = 0
  for (const chunk of randomChunks(total, hash)) {
    if (!to.write(chunk)) await once(to, 'drain')
    sent += chunk.length
    onProgress?.(sent)
  }
  return hash.digest('hex')
}

/** Takes exactly `total` bytes out of `from` and resolves with their hash. More than asked for is an error. */
export async function receive(
  from: Readable,
  total: number,
  onProgress?: (received: number) => void,
): Promise<string> {
  const hash = createHash('sha256')
  let received = 0
  await new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer) => {
      hash.update(chunk)
      received += chunk.length
      onProgress?.(received)
      if (received < total) return
      from.off('data', onData).off('close', onClose).off('error', reject)
      from.pause()
      if (received > total) reject(new Error(`${received - total} bytes more than the ${total} sent`))
      else resolve()
    }
    const onClose = () => reject(new Error(`closed after ${received} of ${total} bytes`))
    // Whoever took bytes before us has paused it.
    from.on('data', onData).on('close', onClose).on('error', reject).resume()
  })
  return hash.digest('hex')
}

/** `total` bytes both ways at once between two ends of a path; asserts that each arrives exactly as sent. */
export async function exchange(a: Readable & Writable, b: Readable & Writable, total: number): Promise<void> {
  const [sentA, sentB, gotA, gotB] = await Promise.all([
    send(a, total),
    send(b, total),
    receive(a, total),
    receive(b, total),
  ])
  assert.equal(gotB, sentA, 'from the first end to the second')
  assert.equal(gotA, sentB, 'from the second end to the first')
}
