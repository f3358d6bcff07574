import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test('the demo goes from the relay to a direct path without losing a byte, shows live sentences, and ends by itself', async () => {
  const { code, stdout, stderr } = await farport(['demo', '--seconds', '2'])
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^\$GPGGA,.*\*[0-9A-F]{2}$/m)
  const relayed = stderr.search(/relayed, \/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\/\w+\/p2p-circuit$/m)
  const direct = stderr.search(/direct, \/ip4\/127\.0\.0\.1\/tcp\/\d+$/m)
  assert.ok(relayed !== -1 && relayed < direct, stderr)
  assert.match(stderr, /encrypted by \/noise, multiplexed by \/yamux/)
  assert.match(stderr, /an echo took [\d.]+ ms before, and takes [\d.]+ ms now$/m)
  assert.match(stderr, /^echo +\d+ bytes went round meanwhile: none lost, none twice/m)
})

test('whoever reads the demo goes away: it ends, and leaves nothing behind', async () => {
  const demo = spawn(process.execPath, [main, 'demo', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(demo, 'exit')
  const seen: { event: string; pid?: number; pty?: string; bytes?: number; afterMs?: number }[] = []
  for await (const line of createInterface({ input: demo.stdout })) {
    seen.push(JSON.parse(line))
    if (seen.at(-1)?.event === 'nmea') break
  }
  demo.stdout.destroy()
  assert.deepEqual(await closed, [0, null])
  const started = seen.flatMap(({ pid }) => pid ?? [])
  assert.equal(started.length, 3)
  for (const pid of started) assert.equal(isRunning(pid), false, `process ${pid} goes on`)
  const told = (name: string) => seen.find(({ event }) => event === name)
  assert.ok((told('direct')?.afterMs ?? 0) >= 500, 'long enough over the relay to be seen')
  assert.ok((told('count')?.bytes ?? 0) > 1_000)
  const { pty } = seen.find(({ event }) => event === 'client') ?? {}
  assert.ok(pty)
  assert.equal(existsSync(dirname(pty)), false, 'its folder is still there')
})
