import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { MetricsEndpoint } from '../../src/daemon/metrics-endpoint.ts'
import { idle } from '../support/daemon-status.ts'

const source = { status: async () => idle, peers: () => [] }
const free = { host: '127.0.0.1', port: 0 }

/** An endpoint and the lines of its log, of warnings and worse. */
function endpoint() {
  const warned: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void warned.push(JSON.parse(line).msg) })
  return { metrics: new MetricsEndpoint({ source, log }), warned }
}

function at({ status }: MetricsEndpoint): string {
  return status?.at ?? ''
}

async function scrape(metrics: MetricsEndpoint): Promise<string> {
  return await (await fetch(at(metrics))).text()
}

test('it starts, moves and ends as it is told', async () => {
  const { metrics, warned } = endpoint()
  await using _ = metrics
  assert.equal(metrics.status, undefined)
  await metrics.become(free)
  const first = at(metrics)
  assert.match(first, /^http:\/\/127\.0\.0\.1:[1-9]\d*\/metrics$/)
  assert.match(await scrape(metrics), /farport_build_info\{version="1\.2\.3"\} 1/)
  // The same once more leaves it alone.
  await metrics.become({ ...free })
  assert.equal(at(metrics), first)

  await metrics.become({ host: 'localhost', port: 0 })
  assert.notEqual(at(metrics), first)
  await assert.rejects(fetch(first))
  assert.match(await scrape(metrics), /farport_build_info/)

  const second = at(metrics)
  await metrics.become(undefined)
  assert.equal(metrics.status, undefined)
  await assert.rejects(fetch(second))
  assert.deepEqual(warned, [])
})

test('several changes at once: the last one counts', async () => {
  const { metrics } = endpoint()
  await using _ = metrics
  await Promise.all([
    metrics.become(free),
    metrics.become(undefined),
    metrics.become({ ...free, host: 'localhost' }),
  ])
  assert.match(at(metrics), /^http:\/\/(127\.0\.0\.1|\[::1\]):\d+\/metrics$/)
  assert.match(await scrape(metrics), /farport_build_info/)
})

test('an address that others reach is warned of', async () => {
  const { metrics, warned } = endpoint()
  await using _ = metrics
  await metrics.become({ host: '0.0.0.0', port: 0 })
  assert.equal(warned.length, 1)
  assert.match(warned[0] ?? '', /whoever reaches this address can read the metrics/)
})

test('a port that is taken is said once, and had when it is free', { timeout: 30_000 }, async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  const { metrics, warned } = endpoint()
  await using _ = metrics
  const wanted = { host: '127.0.0.1', port }
  await metrics.become(wanted)
  const expected = {
    at: `http://127.0.0.1:${port}/metrics`,
    reason: `127.0.0.1:${port} is taken by another program`,
  }
  assert.deepEqual(metrics.status, expected)
  t.mock.timers.tick(1_000)
  await metrics.become(wanted)
  assert.deepEqual(metrics.status, expected)
  assert.deepEqual(warned, ['could not show metrics; trying again'])

  const closed = once(other, 'close')
  other.close()
  await closed
  t.mock.timers.tick(2_000)
  await metrics.become(wanted)
  assert.deepEqual(metrics.status, { at: expected.at })
  t.mock.timers.reset()
  assert.match(await scrape(metrics), /farport_build_info/)
})

test('it is not tried any more once it is not wanted', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  const { metrics } = endpoint()
  await metrics.become({ host: '127.0.0.1', port })
  await metrics[Symbol.asyncDispose]()
  other.close()
  await once(other, 'close')
  t.mock.timers.tick(60_000)
  await metrics.become(undefined)
  assert.equal(metrics.status, undefined)
})

test('who shows no metrics does not load what makes them', async () => {
  const loaded = async (...files: string[]) => {
    const imports = files.map(
      (file) => `await import('${new URL(`../../src/daemon/${file}`, import.meta.url)}')`,
    )
    const ask = `console.log(Object.keys(require.cache).filter((path) => path.includes('prom-client')).length)`
    const script = `import { createRequire } from 'node:module'; const require = createRequire('/'); ${[...imports, ask].join(';')}`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script])
    return Number(stdout)
  }
  assert.equal(await loaded('daemon.ts'), 0)
  // Else the question would be wrong.
  assert.ok((await loaded('metrics.ts')) > 0)
})
