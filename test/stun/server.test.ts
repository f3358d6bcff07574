import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { createLog } from '../../src/log.ts'
import { readMessage, StunUdpClient, stunTcp, stunUdp } from '../../src/stun/client.ts'
import { decodeMessage, encodeMessage, type IpEndpoint, StunError } from '../../src/stun/message.ts'
import { type StunLimits, StunServer } from '../../src/stun/server.ts'

const log = createLog('silent')
const signal = AbortSignal.timeout(20_000)

/** On loopback, with the two ports first and second of each address. */
async function start(hosts: readonly [string] | readonly [string, string], limits?: Partial<StunLimits>) {
  const server = await StunServer.start({ hosts, ports: [0, 0], log, ...(limits && { limits }) })
  const at = (n: number) => {
    const { address, port } = server.addresses[n] as IpEndpoint
    return { host: address, port }
  }
  return { server, at, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}

const request = (n: number) => encodeMessage({ type: 'request', transactionId: Buffer.alloc(12, n) })

for (const host of ['127.0.0.1', '::1']) {
  test(`${host}: both protocols say where the question came from`, async () => {
    await using stun = await start([host])
    const udp = await stunUdp(stun.at(0), { signal })
    assert.deepEqual(udp.mapped, { address: host, port: udp.local.port })
    using tcp = await stunTcp(stun.at(1), { signal })
    assert.deepEqual(tcp.mapped, { address: host, port: tcp.local.port })
    assert.ok(udp.rttMs > 0 && tcp.rttMs > 0)
  })
}

test('a port can be named, and the same one asked from again while the first connection is kept', async () => {
  await using stun = await start(['127.0.0.1'])
  using first = await stunTcp(stun.at(0), { signal })
  const localPort = first.local.port
  using second = await stunTcp(stun.at(1), { localPort, signal })
  assert.equal(second.mapped.port, localPort)

  // What a hole puncher does next: a plain connection from the port whose mapping it knows.
  const target = createServer().listen(0, '127.0.0.1')
  await once(target, 'listening')
  const { port } = target.address() as { port: number }
  const punched = connect({ port, host: '127.0.0.1', localAddress: '0.0.0.0', localPort })
  const [accepted] = (await once(target, 'connection')) as [Socket]
  assert.equal(accepted.remotePort, localPort)
  punched.destroy()
  accepted.destroy()
  target.close()

  const udp = await stunUdp(stun.at(0), { localPort, signal })
  assert.equal(udp.mapped.port, localPort)
})

test('a port that somebody listens on is said to be in use', async () => {
  await using stun = await start(['127.0.0.1'])
  const taken = createServer().listen(0, '0.0.0.0')
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  await assert.rejects(stunTcp(stun.at(0), { localPort: port, signal }), { code: 'ERR_IN_USE' })
  taken.close()
  const [udp] = [createSocket('udp4').bind(0)]
  await once(udp, 'listening')
  await assert.rejects(stunUdp(stun.at(0), { localPort: udp.address().port, signal }), { code: 'ERR_IN_USE' })
  udp.close()
  await assert.rejects(StunServer.start({ hosts: ['127.0.0.1'], ports: [stun.at(0).port, 0], log }), {
    code: 'ERR_IN_USE',
  })
})

test('answers come from the other port and the other address when asked for', async () => {
  await using stun = await start(['127.0.0.1', '127.0.0.2'])
  await using client = await StunUdpClient.bind({ family: 4 })
  const places = []
  for (const [address, port] of [
    [false, false],
    [false, true],
    [true, false],
    [true, true],
  ] as const) {
    const { origin, other } = await client.ask(stun.at(0), { change: { address, port }, signal })
    assert.deepEqual(other, stun.server.addresses[3])
    places.push(origin)
  }
  const [a, b, c, d] = stun.server.addresses
  assert.deepEqual(places, [a, b, c, d])
})

test('with one address the other port is there, the other address is refused', async () => {
  await using stun = await start(['0.0.0.0'])
  const server = { host: '127.0.0.1', port: stun.at(0).port }
  await using client = await StunUdpClient.bind({ family: 4 })
  const changed = await client.ask(server, { change: { address: false, port: true }, signal })
  assert.equal(changed.mapped.port, client.localPort)
  assert.equal(changed.origin, undefined, 'a wildcard says nothing of where it answers from')
  await assert.rejects(client.ask(server, { change: { address: true, port: false }, signal }), {
    code: 'ERR_PROTOCOL',
    cause: new StunError('refused: 420'),
  })
})

test('the name of a server is looked up', async () => {
  await using stun = await start(['127.0.0.1'])
  const server = { host: 'localhost', port: stun.at(0).port }
  assert.equal((await stunUdp(server, { signal })).mapped.address, '127.0.0.1')
  using tcp = await stunTcp(server, { signal })
  assert.equal(tcp.mapped.address, '127.0.0.1')
})

test('nobody there, somebody silent, somebody else: each is told from the others', async () => {
  const silent = createServer((socket) => socket.resume().on('error', () => undefined)).listen(0, '127.0.0.1')
  const babbling = createServer((socket) =>
    socket.resume().end('220 smtp.example.org ESMTP ready\r\n'),
  ).listen(0, '127.0.0.1')
  await Promise.all([once(silent, 'listening'), once(babbling, 'listening')])
  const at = (server: typeof silent) => ({
    host: '127.0.0.1',
    port: (server.address() as { port: number }).port,
  })
  await assert.rejects(stunTcp(at(silent), { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
  await assert.rejects(stunTcp(at(babbling), { signal }), { code: 'ERR_PROTOCOL' })
  const gone = at(babbling)
  await new Promise((done) => babbling.close(done))
  await assert.rejects(stunTcp(gone, { signal }), { code: 'ERR_PEER_UNREACHABLE' })
  await assert.rejects(stunUdp(gone, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
  await assert.rejects(stunUdp(gone, { signal: AbortSignal.abort() }), { name: 'AbortError' })
  silent.close()
})

test('a lost datagram is asked for again', async () => {
  const lossy = createSocket('udp4').bind(0, '127.0.0.1')
  await once(lossy, 'listening')
  let seen = 0
  lossy.on('message', (bytes, from) => {
    const { transactionId } = decodeMessage(bytes)
    const mapped = { address: from.address, port: from.port }
    if (++seen === 2)
      lossy.send(encodeMessage({ type: 'success', transactionId, mapped }), from.port, from.address)
    // Somebody else's answer, and noise, must not be taken for ours.
    else
      lossy.send(
        encodeMessage({ type: 'success', transactionId: Buffer.alloc(12), mapped }),
        from.port,
        from.address,
      )
    lossy.send('noise', from.port, from.address)
  })
  await using client = await StunUdpClient.bind({ family: 4 })
  const answer = await client.ask({ host: '127.0.0.1', port: lossy.address().port }, { signal })
  assert.equal(answer.mapped.port, client.localPort)
  assert.equal(seen, 2)
  assert.ok(answer.rttMs < 200, 'measured from the datagram that was answered')
  lossy.close()
})

test('questions are answered at the rate of the limit, and noise not at all', async () => {
  await using stun = await start(['127.0.0.1'], { perSourcePerSecond: 5 })
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port, host } = stun.at(0)
  const answers: Buffer[] = []
  socket.on('message', (bytes) => answers.push(bytes))
  socket.send('noise', port, host)
  socket.send(
    encodeMessage({ type: 'success', transactionId: Buffer.alloc(12), mapped: { address: host, port } }),
    port,
    host,
  )
  for (let n = 0; n < 50; n++) socket.send(request(n), port, host)
  // Asked again and again until the limit has refilled: by then all of the above was looked at.
  const asking = setInterval(() => socket.send(request(99), port, host), 20)
  while (!answers.some((bytes) => decodeMessage(bytes).transactionId[0] === 99))
    await once(socket, 'message', { signal })
  clearInterval(asking)
  const early = answers.filter((bytes) => decodeMessage(bytes).transactionId[0] !== 99)
  assert.equal(early.length, 3, 'five at once, two of them spent on noise')
  socket.close()
})

test('an answer is at most 56 bytes for 20, and 32 where the address is a wildcard', async () => {
  for (const [hosts, length] of [
    [['127.0.0.1', '127.0.0.2'], 56],
    [['0.0.0.0'], 32],
  ] as const) {
    await using stun = await start(hosts)
    const socket = createSocket('udp4').bind(0, '127.0.0.1')
    await once(socket, 'listening')
    socket.send(request(1), stun.at(0).port, '127.0.0.1')
    const [answer] = (await once(socket, 'message')) as [Buffer]
    assert.equal(answer.length, length)
    socket.close()
  }
})

test('over TCP: questions cut anywhere and several at once, up to the limit', async () => {
  await using stun = await start(['127.0.0.1'], { requestsPerConnection: 3 })
  const { host, port } = stun.at(0)
  const socket = connect(port, host)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  const wire = Buffer.concat([request(1), request(2)])
  for (const byte of wire.subarray(0, 30)) socket.write(Buffer.of(byte))
  socket.write(wire.subarray(30))
  let got = Buffer.alloc(0)
  socket.on('data', (chunk) => {
    got = Buffer.concat([got, chunk])
    // The fourth is one too many, and ends it.
    if (got.length === 112) socket.write(Buffer.concat([request(3), request(4)]))
  })
  await once(socket, 'close')
  assert.equal(got.length, 3 * 56)
  assert.deepEqual(
    [0, 56, 112].map((at) => decodeMessage(got.subarray(at, at + 56)).transactionId[0]),
    [1, 2, 3],
  )
})

test('over TCP, an answer from elsewhere is a call to whoever asked', async () => {
  await using stun = await start(['127.0.0.1', '127.0.0.2'])
  using held = await stunTcp(stun.at(0), { signal })
  const listener = createServer().listen(held.local.port, '0.0.0.0')
  await once(listener, 'listening')
  for (const [address, from] of [
    [false, '127.0.0.1'],
    [true, '127.0.0.2'],
  ] as const) {
    const call = once(listener, 'connection', { signal })
    const transactionId = held.requestCall({ address, port: true })
    const [socket] = (await call) as [Socket]
    const { port } = stun.at(0)
    assert.equal(socket.remoteAddress, from)
    assert.notEqual(socket.remotePort, port)
    const answer = await readMessage(socket)
    assert.deepEqual(answer.transactionId, transactionId)
    assert.deepEqual(answer.type === 'success' && answer.mapped, {
      address: '127.0.0.1',
      port: held.local.port,
    })
    socket.destroy()
  }
  listener.close()
})

test('over TCP, without another address none can call', async () => {
  await using stun = await start(['127.0.0.1'])
  const socket = connect(stun.at(0).port, '127.0.0.1').on('error', () => undefined)
  const transactionId = Buffer.alloc(12, 7)
  socket.write(encodeMessage({ type: 'request', transactionId, change: { address: true, port: false } }))
  assert.deepEqual(await readMessage(socket), { type: 'error', transactionId, code: 420, unknown: [3] })
  socket.destroy()
})

test('connections are capped per address, and end in time', async () => {
  await using stun = await start(['127.0.0.1'], { connectionsPerSource: 2, connectionMs: 200 })
  const { host, port } = stun.at(0)
  const open = await Promise.all([stunTcp({ host, port }, { signal }), stunTcp({ host, port }, { signal })])
  await assert.rejects(stunTcp({ host, port }, { signal }), /STUN server/)
  using other = await stunTcp({ host, port }, { localAddress: '127.0.0.9', signal })
  assert.equal(other.mapped.address, '127.0.0.9')
  const silent = connect({ port, host, localAddress: '127.0.0.8' }).on('error', () => undefined)
  await once(silent.resume(), 'close')
  for (const mapping of open) mapping[Symbol.dispose]()
  using again = await stunTcp({ host, port }, { signal })
  assert.equal(again.mapped.address, host)
})

test('whoever is not speaking STUN is hung up on', async () => {
  await using stun = await start(['127.0.0.1'])
  const { host, port } = stun.at(0)
  const socket = connect(port, host).on('error', () => undefined)
  socket.write('GET / HTTP/1.1\r\nHost: relay.example.org\r\n\r\n')
  let got = 0
  socket.on('data', ({ length }) => {
    got += length
  })
  await once(socket, 'close')
  assert.equal(got, 0)
})
