/** One process of a plain TCP path: passes on to the port given, or echoes when none is. Prints its own port. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'

const [target] = process.argv.slice(2)
const server = createServer({ noDelay: true }, (near) => {
  const far =
    target === undefined ? near : connect({ port: Number(target), host: '127.0.0.1', noDelay: true })
  for (const socket of new Set([near, far])) socket.on('error', () => {})
  near.pipe(far)
  if (far !== near) far.pipe(near)
}).listen(0, '127.0.0.1')
await once(server, 'listening')
process.stdout.write(`${(server.address() as AddressInfo).port}\n`)
