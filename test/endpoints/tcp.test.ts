import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { listenTcp } from '../../src/endpoints/tcp.ts'
import { createLog } from '../../src/log.ts'
import { simulatedPort } from '../../src/serial/simulated.ts'

async function echoAt(mode: 'raw' | 'rfc2217') {
  const source = simulatedPort('echo', {})
  const endpoint = await listenTcp({ host: '127.0.0.1', port: 0, mode, log: createLog('silent') }, (signal) =>
    source.open({ signal }),
  )
  return { endpoint, port: Number(endpoint.address.split(':')[1]) }
}

async function come(port: number) {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  return socket
}

test('a program that leaves and comes back at once is served, a hundred times', async () => {
  const { endpoint, port } = await echoAt('raw')
  await using _ = endpoint
  for (let i = 0; i < 100; i++) {
    const socket = await come(port)
    socket.write(`${i}`)
    const [back] = (await once(socket, 'data')) as [Buffer]
    assert.equal(String(back), `${i}`)
    socket.destroy()
  }
})

test('while one program is there, one other waits a little, and more are turned away at once', async () => {
  const { endpoint, port } = await echoAt('raw')
  await using _ = endpoint
  const first = await come(port)
  first.write('x')
  await once(first, 'data')
  const second = await come(port)
  const third = await come(port)
  await once(third.resume(), 'close')
  assert.equal(second.destroyed, false)
  first.destroy()
  second.write('y')
  assert.equal(String((await once(second, 'data'))[0]), 'y')
  second.destroy()
})
