/**
 * Connects two ports of the loopback with each other, neither of which listens, and says how that went. For punch.test.ts,
 * which runs it where the kernel's resets are dropped, as NATs drop what they don't expect: otherwise the first of two
 * packets is refused before the second can be sent.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { connectFrom } from '../../src/direct/punch.ts'

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

const [a, b] = [await freePort(), await freePort()]
const signal = AbortSignal.timeout(8_000)
const startedMs = performance.now()
const sockets = await Promise.all([
  connectFrom(a, { address: '127.0.0.1', port: b }, signal),
  connectFrom(b, { address: '127.0.0.1', port: a }, signal),
])
const ms = Math.round(performance.now() - startedMs)
const heard = await Promise.all(
  sockets.map(async (socket, k) => {
    socket.write(`from ${k}`)
    const [bytes] = await once(socket, 'data', { signal })
    return String(bytes)
  }),
)
console.log(
  JSON.stringify({ ms, heard, ports: sockets.map((s) => [s.localPort, s.remotePort]), expected: [a, b] }),
)
for (const socket of sockets) socket.destroy()
