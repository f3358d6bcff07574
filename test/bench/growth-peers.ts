import { once } from 'node:events'
import { openFarport } from '../../src/library/farport.ts'

/** Clients of one agent in one process, each with a home, a key and a port of its own: `growth-peers.ts HOME=a/PORT..` */
await using stack = new AsyncDisposableStack()
for (const pair of process.argv.slice(2)) {
  const [home = '', port = ''] = pair.split('=')
  const farport = stack.use(await openFarport({ home }))
  const serial = stack.use(await farport.open(port))
  serial.resume()
}
process.stdout.write('ready\n')
process.stdin.resume()
await once(process.stdin, 'end')
