import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

/**
 * Two machines on one LAN, as two network namespaces joined by a cable, who have never exchanged a key: four words are
 * said, and bytes flow.
 */
const main = new URL('../../src/cli/main.ts', import.meta.url).pathname

function unfit(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'network namespaces need Linux and root'
  return spawnSync('ip', ['-V']).status === 0 ? undefined : 'ip is missing: apt-get install iproute2'
}
const reason = unfit()
if (reason !== undefined && process.env.CI) throw new Error(reason)

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' })

test('a code found on the LAN', { skip: reason ?? false, timeout: 60_000 }, async () => {
  await using stack = new AsyncDisposableStack()
  const dir = mkdtempSync(join(tmpdir(), 'farport-lan-'))
  stack.defer(() => rmSync(dir, { recursive: true, force: true }))
  const [a, b] = [`farport-${process.pid}-a`, `farport-${process.pid}-b`]
  for (const name of [a, b]) {
    ip('netns', 'add', name)
    stack.defer(() => void ip('netns', 'del', name))
  }
  ip('link', 'add', 'eth0', 'netns', a, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', b)
  for (const [name, address] of [
    [a, '10.77.0.1/24'],
    [b, '10.77.0.2/24'],
  ] as const) {
    ip('-n', name, 'addr', 'add', address, 'dev', 'eth0')
    ip('-n', name, 'link', 'set', 'lo', 'up')
    ip('-n', name, 'link', 'set', 'eth0', 'up')
  }

  const start = (netns: string, ...args: string[]): ChildProcess => {
    const child = spawn('ip', ['netns', 'exec', netns, process.execPath, main, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const closed = once(child, 'close')
    stack.defer(async () => {
      child.kill('SIGTERM')
      await closed
    })
    return child
  }
  const lines = (child: ChildProcess) =>
    createInterface({ input: child.stdout as NonNullable<typeof child.stdout> })
  const home = (name: string) => ['--home', join(dir, name)]

  const agent = start(a, 'share', 'simulated:gps?hz=10=gps', ...home('agent'), '--json')
  await once(lines(agent), 'line')
  const invite = start(a, 'invite', 'gps', '--code', ...home('agent'), '--json')
  const { text } = JSON.parse(((await once(lines(invite), 'line')) as [string])[0]) as { text: string }

  const pair = start(b, 'pair', ...home('client'), '--json')
  pair.stdin?.end(text)
  const { name } = JSON.parse(((await once(lines(pair), 'line')) as [string])[0]) as { name: string }

  const use = start(b, 'connect', `${name}/gps`, ...home('client'), '--stdio')
  const [sentence] = (await once(lines(use), 'line')) as [string]
  assert.match(sentence, /\$GP/)
})
