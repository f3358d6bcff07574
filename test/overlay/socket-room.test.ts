import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { writerOf } from '../../src/overlay/socket-room.ts'

const BLOCK = Buffer.alloc(4096)

test('a socket whose peer does not read is full soon, and has room when it does', async (t) => {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  const connected = once(socket, 'connect')
  const [peer] = (await once(server, 'connection')) as [Socket]
  await connected
  t.after(() => peer.destroy())
  const room = Promise.withResolvers<void>()
  const write = writerOf(socket, room.resolve)
  let taken = 0
  while (write(BLOCK)) taken += BLOCK.length
  // What the peer's kernel has room for and little more; by itself ours would add megabytes.
  assert.ok(taken < 1024 * 1024, `${taken} bytes`)
  peer.resume()
  await room.promise
  assert.equal(write(BLOCK), true)
})
