import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { mock, test } from 'node:test'
import { NodePair } from './nodes.ts'

test('a frame is one write to the socket, and so one packet', async () => {
  await using pair = await NodePair.start()
  const { near, far } = await pair.open()
  near.write('x')
  await once(far, 'data')
  const port = Number(pair.near.paths()[0]?.remoteAddress.split('/')[4])
  // What every write of a socket goes through, of one piece or of several.
  const writes = mock.method(Socket.prototype as unknown as { _writeGeneric(): void }, '_writeGeneric')
  try {
    for (const bytes of ['y', Buffer.alloc(8 * 1024)]) {
      writes.mock.resetCalls()
      near.write(bytes)
      await once(far, 'data')
      const ofNear = writes.mock.calls.filter((call) => (call.this as unknown as Socket).remotePort === port)
      assert.equal(ofNear.length, 1)
    }
  } finally {
    writes.mock.restore()
  }
})
