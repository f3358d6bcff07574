import assert from 'node:assert/strict'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { test } from 'node:test'
import { createLog } from '../../src/log.ts'
import { decodeMessage, encodeMessage } from '../../src/stun/message.ts'
import { natReport } from '../../src/stun/nat-report.ts'
import { StunServer } from '../../src/stun/server.ts'

// What real routers do is checked in test/support/nat-lab.test.ts; here, what can be seen without one.

const log = createLog('silent')
const signal = AbortSignal.timeout(20_000)

function service(server: StunServer) {
  const [first, second] = server.addresses
  assert.ok(first && second)
  return { host: first.address, ports: [first.port, second.port] as const }
}

test('without a NAT: not translated, one mapping, and a server with two addresses gets in from both', async () => {
  await using server = await StunServer.start({ hosts: ['127.0.0.1', '127.0.0.2'], ports: [0, 0], log })
  const { udp, tcp } = await natReport([service(server)], { signal })
  assert.ok(udp.state === 'open' && tcp.state === 'open')
  for (const seen of [udp, tcp]) {
    assert.equal(seen.mapped.address, '127.0.0.1')
    assert.deepEqual(
      [seen.translated, seen.mapping, seen.portPreserved],
      [false, 'endpoint-independent', true],
    )
  }
  assert.deepEqual([udp.filtering, tcp.filtering], ['endpoint-independent', 'endpoint-independent'])
})

test('one address can show no more than that another port is let in', async () => {
  await using server = await StunServer.start({ hosts: ['127.0.0.1'], ports: [0, 0], log })
  for (const seen of Object.values(await natReport([service(server)], { signal })))
    assert.equal(seen.state === 'open' && seen.filtering, 'address-dependent')
})

test('a server that is away is made up for by another', async () => {
  await using gone = await StunServer.start({ hosts: ['127.0.0.1'], ports: [0, 0], log })
  await using server = await StunServer.start({ hosts: ['127.0.0.2'], ports: [0, 0], log })
  const services = [service(gone), service(server)] as const
  await gone[Symbol.asyncDispose]()
  const { udp, tcp } = await natReport([...services], { signal })
  assert.deepEqual([udp.state, tcp.state], ['open', 'open'])
})

test('nobody answers: blocked, and no later than the signal', async () => {
  await using gone = await StunServer.start({ hosts: ['127.0.0.1'], ports: [0, 0], log })
  const services = [service(gone)] as const
  await gone[Symbol.asyncDispose]()
  assert.deepEqual(await natReport([...services], { signal }), {
    udp: { state: 'blocked' },
    tcp: { state: 'blocked' },
  })
  await assert.rejects(natReport([...services], { signal: AbortSignal.timeout(50) }), {
    name: 'TimeoutError',
  })
})

/** Answers each question as if a NAT had given the asker `port`. */
async function translated(host: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4').bind(0, host)
  await once(socket, 'listening')
  socket.on('message', (bytes, from) => {
    const request = decodeMessage(bytes)
    const mapped = { address: '192.0.2.1', port }
    if (request.type === 'request' && request.change === undefined)
      socket.send(encodeMessage({ ...request, type: 'success', mapped }), from.port, from.address)
  })
  return socket
}

for (const [ports, mapping] of [
  [[6000, 6000, 6000, 6000], 'endpoint-independent'],
  [[6000, 6000, 6001, 6001], 'address-dependent'],
  [[6000, 6001, 6002, 6003], 'address-and-port-dependent'],
] as const) {
  test(`two servers that see ports ${ports.join(', ')}: ${mapping} mapping`, async () => {
    const hosts = ['127.0.0.1', '127.0.0.1', '127.0.0.2', '127.0.0.2']
    const sockets = await Promise.all(ports.map((port, k) => translated(hosts[k] as string, port)))
    const [a, b, c, d] = sockets.map((socket) => socket.address().port) as [number, number, number, number]
    const report = await natReport(
      [
        { host: '127.0.0.1', ports: [a, b] },
        { host: '127.0.0.2', ports: [c, d] },
      ],
      { signal },
    )
    for (const socket of sockets) socket.close()
    const { udp } = report
    assert.ok(udp.state === 'open')
    assert.deepEqual([udp.translated, udp.mapping], [true, mapping])
    assert.equal(udp.filtering, 'address-and-port-dependent', 'asked to, no other port answered')
  })
}
