import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { pino } from 'pino'
import { listenMetrics, type Page } from '../../src/daemon/metrics-server.ts'

const log = pino({ level: 'silent' })
const contentType = 'text/plain; version=0.0.4; charset=utf-8'
const here = { host: '127.0.0.1', port: 0, log }

async function ask(port: number, method: string, path: string, body?: string, host?: string) {
  const headers = host === undefined ? {} : { host }
  const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: false }).end(body)
  const [response] = await once(asked, 'response')
  return { status: response.statusCode, headers: response.headers, body: await text(response) }
}

/** However it ends: `once` would make an error of a reset. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

test('GET and HEAD of /metrics are answered, and nothing else', async () => {
  await using server = await listenMetrics({ ...here, page: async () => ({ contentType, text: 'up 1\n' }) })
  const { port } = server
  const page = await ask(port, 'GET', '/metrics')
  assert.deepEqual([page.status, page.body, page.headers['content-type']], [200, 'up 1\n', contentType])
  assert.equal((await ask(port, 'GET', '/metrics?name[]=up')).status, 200)
  const head = await ask(port, 'HEAD', '/metrics')
  assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '5'])
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const { status, headers } = await ask(port, method, '/metrics', 'x')
    assert.deepEqual([method, status, headers.allow], [method, 405, 'GET, HEAD'])
  }
  for (const path of ['/', '/metrics/', '/metricsx', '/../metrics', '//metrics', '/%6detrics', '/config'])
    assert.deepEqual([path, (await ask(port, 'GET', path)).status], [path, 404])
})

test('a web page that calls this machine by a name of its own reads nothing', async () => {
  const page = async () => ({ contentType, text: 'up 1\n' })
  await using server = await listenMetrics({ ...here, host: '127.0.0.1', page })
  const status = async (host: string) => (await ask(server.port, 'GET', '/metrics', undefined, host)).status
  for (const host of ['127.0.0.1', '127.0.0.1:1', '[::1]:9464', 'localhost', 'Localhost:9464', '192.0.2.1'])
    assert.deepEqual([host, await status(host)], [host, 200])
  for (const host of [
    'evil.example',
    'evil.example:9464',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'x',
  ])
    assert.deepEqual([host, await status(host)], [host, 403])
})

test('the name in farport.yaml is one to call it by', async () => {
  // A name to HTTP, and an address to the resolver.
  const host = '127.1'
  await using server = await listenMetrics({
    ...here,
    host,
    page: async () => ({ contentType, text: 'up 1\n' }),
  })
  assert.equal(server.host, '127.0.0.1')
  assert.equal((await ask(server.port, 'GET', '/metrics', undefined, host)).status, 200)
  assert.equal((await ask(server.port, 'GET', '/metrics', undefined, '127.2')).status, 403)
})

test('a page that can not be made is an answer, too, without the reason', async () => {
  const page = () => Promise.reject(new Error('a secret'))
  await using server = await listenMetrics({ ...here, page })
  const { status, body } = await ask(server.port, 'GET', '/metrics')
  assert.equal(status, 500)
  assert.doesNotMatch(body, /secret/)
})

test('whoever comes while a page is being made gets the same one', async () => {
  let made = 0
  const making = Promise.withResolvers<Page>()
  const page = () => {
    made++
    return making.promise
  }
  await using server = await listenMetrics({ ...here, page })
  const sockets = [connect(server.port, '127.0.0.1'), connect(server.port, '127.0.0.1')]
  const answers = sockets.map(async (socket) => {
    socket.write('GET /metrics HTTP/1.0\r\n\r\n')
    return await text(socket)
  })
  // Answered on a third one, so the first two were heard.
  while ((await ask(server.port, 'GET', '/')).status !== 404);
  making.resolve({ contentType, text: 'up 1\n' })
  for (const answer of await Promise.all(answers)) assert.match(answer, /up 1/)
  assert.equal(made, 1)
})

test('connections are few, and those that say nothing are closed', { timeout: 30_000 }, async () => {
  await using server = await listenMetrics({ ...here, page: async () => ({ contentType, text: 'up 1\n' }) })
  const mute = Array.from({ length: 16 }, () => connect(server.port, '127.0.0.1').on('error', () => {}))
  await Promise.all(mute.map((socket) => once(socket, 'connect')))
  const surplus = connect(server.port, '127.0.0.1').on('error', () => {})
  await closed(surplus)
  assert.deepEqual(
    mute.map((socket) => socket.destroyed),
    mute.map(() => false),
  )
  // A header that never ends is not waited for either.
  for (const socket of mute) socket.resume().write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n')
  await Promise.all(mute.map(closed))
  assert.equal((await ask(server.port, 'GET', '/metrics')).status, 200)
})

test('a header that is too long is refused', async () => {
  await using server = await listenMetrics({ ...here, page: async () => ({ contentType, text: 'up 1\n' }) })
  const socket = connect(server.port, '127.0.0.1').on('error', () => {})
  socket.write(`GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(10_000)}\r\n\r\n`)
  assert.match(await text(socket), /^HTTP\/1\.1 431 /)
})

test('an address that is taken, or that is not ours, is said', async () => {
  const page = async () => ({ contentType, text: '' })
  await using first = await listenMetrics({ ...here, page })
  const { port } = first
  await assert.rejects(listenMetrics({ ...here, port, page }), {
    code: 'ERR_IN_USE',
    message: `127.0.0.1:${port} is taken by another program`,
  })
  await assert.rejects(listenMetrics({ ...here, host: '192.0.2.1', page }), { code: 'ERR_USAGE' })
})

test('when it ends, those who are connected are cut', async () => {
  const server = await listenMetrics({ ...here, page: () => new Promise<Page>(() => {}) })
  const socket = connect(server.port, '127.0.0.1').on('error', () => {})
  socket.resume().write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await once(socket, 'connect')
  const cut = closed(socket)
  await server[Symbol.asyncDispose]()
  await cut
})
