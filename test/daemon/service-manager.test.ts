import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { serviceManager } from '../../src/daemon/service-manager.ts'

const skip = process.platform === 'linux' ? false : 'systemd is Linux'

/** Node has no datagram sockets of the unix domain, so Python stands for systemd: each datagram a line. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n = sys.argv[1]
s.bind('\\0' + n[1:] if n.startswith('@') else n)
print('bound', flush=True)
while True: print(s.recv(4096).decode(), flush=True)
`

async function listener(t: TestContext, name: string) {
  const child = spawn('python3', ['-c', LISTENER, name], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill())
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => (await lines.next()).value as string
  assert.equal(await next(), 'bound')
  return { next, child }
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'farport-notify-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

for (const kind of ['a path', 'an abstract name'] as const)
  test(`systemd hears of us, at ${kind}`, { skip }, async (t) => {
    const name = kind === 'a path' ? join(folder(t), 'notify') : `@farport-test-${process.pid}`
    const { next } = await listener(t, name)
    using manager = serviceManager({ NOTIFY_SOCKET: name })
    assert.ok(manager)
    manager.ready()
    manager.status('2 ports\nready')
    manager.stopping()
    assert.deepEqual(
      [await next(), await next(), await next()],
      ['READY=1', 'STATUS=2 ports ready', 'STOPPING=1'],
    )
  })

test('the watchdog is fed for as long as all is well', { skip }, async (t) => {
  const name = join(folder(t), 'notify')
  const { next } = await listener(t, name)
  using manager = serviceManager({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '20000' })
  let asked = 0
  const { promise: unwell, resolve } = Promise.withResolvers<void>()
  manager?.watch(() => {
    asked++
    if (asked === 5) resolve()
    return asked <= 3
  })
  const timer = setInterval(() => {}, 1000)
  t.after(() => clearInterval(timer))
  await unwell
  manager?.stopping()
  assert.deepEqual(
    [await next(), await next(), await next(), await next()],
    ['WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1', 'STOPPING=1'],
  )
})

test('a watchdog that is another process’s is left to it', { skip }, async (t) => {
  const name = join(folder(t), 'notify')
  const { next } = await listener(t, name)
  using manager = serviceManager({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' })
  manager?.watch(() => assert.fail('not ours to tell'))
  manager?.stopping()
  assert.equal(await next(), 'STOPPING=1')
})

test('a manager that is gone, or was never there, changes nothing', { skip }, async (t) => {
  assert.equal(serviceManager({}), undefined)
  const name = join(folder(t), 'notify')
  using nobody = serviceManager({ NOTIFY_SOCKET: name })
  nobody?.ready()
  const { child } = await listener(t, name)
  using manager = serviceManager({ NOTIFY_SOCKET: name })
  child.kill()
  await once(child, 'close')
  manager?.ready()
})

test('what is no socket is said', { skip }, () => {
  for (const name of ['vsock:2:1234', 'notify', `/${'x'.repeat(120)}`])
    assert.throws(() => serviceManager({ NOTIFY_SOCKET: name }), { code: 'ERR_USAGE' })
})
