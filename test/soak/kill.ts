import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import { linuxPort } from '../../src/device/linux-port.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { openTrustStore } from '../../src/trust/trust-store.ts'
import { farport } from '../support/cli.ts'
import { freePort } from '../support/free-port.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { FarportProcess } from './process.ts'

const MAIN = new URL('../../src/cli/main.ts', import.meta.url).pathname
/** Peers that are revoked while farport is killed: one file changes when the next kill comes. */
const OTHER_PEERS = 12
/** From the start to the kill, at most: until well after it is ready. Half of the kills come in the first half. */
const MAX_LIFE_MS = 1_600
const LOAD_BYTES = 4 * 1024
const BACK_MS = 20_000
/** Files that were written aside are cleared away once nobody can be writing them any more. */
const LONG_AGO_S = 3 * 60 * 60
const log = pino({ level: 'silent' })

/** What a home has after any number of kills; other files are somebody's leftovers. */
const FILES = ['audit.log', 'control.sock', 'farport.yaml', 'identity.key', 'revoked_peers', 'trusted_peers']

/**
 * Ends `farport up` by SIGKILL at any moment, so many times: with ports in use, a link of its own, and a trust file that
 * is being changed. Each time it comes back as who it was, to those it trusted, with its ports and links at work.
 */
export async function kill(kills: number, say: (line: string) => void = console.log): Promise<void> {
  await using homes = await TwoHomes.make()
  const { agentHome: home, clientHome } = homes
  const [port, clientPort] = [await freePort(), await freePort()]
  const device = homes.use(ptyPair())
  device.master.on('data', (bytes) => device.master.write(bytes))
  const link = homes.path('link')
  await writeFile(
    join(home, 'farport.yaml'),
    `listen: [/ip4/127.0.0.1/tcp/${port}]
ports: {echo: "simulated:echo", device: ${device.slavePath}}
links: [{port: client/back, pty: ${link}}]
`,
  )
  await writeFile(
    join(clientHome, 'farport.yaml'),
    `listen: [/ip4/127.0.0.1/tcp/${clientPort}]
ports: {back: "simulated:echo"}
links: [{port: a/echo, raw: ":0"}, {port: a/device, raw: ":0"}]
`,
  )
  const others = await strangers(homes)
  const trusted = [
    `client ${homes.clientId} ports=* addr=/ip4/127.0.0.1/tcp/${clientPort}`,
    ...others.map((peerId, i) => `other-${i} ${peerId} ports=echo`),
  ]
  await writeFile(join(home, 'trusted_peers'), `${trusted.join('\n')}\n`, { mode: 0o600 })
  await writeFile(
    join(clientHome, 'trusted_peers'),
    `a ${homes.agentId} ports=* addr=/ip4/127.0.0.1/tcp/${port}\n`,
    { mode: 0o600 },
  )
  await using client = new FarportProcess('up', '--home', clientHome)
  const { links } = (await client.ready()) as unknown as { links: { at: string }[] }
  await using first = new FarportProcess('up', '--home', home)
  await first.ready()
  const programs = links.map(({ at }) => program(Number(at.split(':')[1])))
  using _programs = { [Symbol.dispose]: () => programs.forEach((one) => void one.destroy()) }

  await Promise.all(programs.map((one, i) => answers(one, `#first ${i}#`)))
  await first.kill()

  const left = new Set<string>()
  let early = 0
  let revoked: ReadonlySet<string> = new Set()
  const readyMs: number[] = []
  const backMs: number[] = []
  for (let round = 0; round < kills; round++) {
    const lifeMs = randomInt(MAX_LIFE_MS)
    const revoking = round % 2 === 0 ? revokeForAWhile(home, `other-${(round / 2) % OTHER_PEERS}`) : undefined
    await using agent = new FarportProcess('up', '--home', home)
    const ready = agent.ready().catch((error: Error) => error)
    if (lifeMs < MAX_LIFE_MS / 2) {
      early++
      await delay(lifeMs)
      await agent.kill()
    } else {
      const startedAt = performance.now()
      const event = await ready
      if (event instanceof Error) throw event
      readyMs.push(performance.now() - startedAt)
      assert.equal(event.peerId, homes.agentId, 'it is not who it was')
      await Promise.all(programs.map((one, i) => answers(one, `#${round}.${i}#`))).catch((error: Error) => {
        throw new Error(`${error.message}; the client says: ${client.words}; the agent: ${agent.words}`)
      })
      const own = await openLink(link)
      await answers(own, `#${round}#`)
      backMs.push(performance.now() - startedAt)
      const load = setInterval(() => {
        for (const one of [...programs, own]) one.write(randomBytes(LOAD_BYTES))
      }, 5)
      await delay(lifeMs - MAX_LIFE_MS / 2)
      await agent.kill()
      clearInterval(load)
      own.destroy()
    }
    await revoking
    for (const name of await leftovers(home)) left.add(name)
    revoked = await checkTrust(homes.clientId, home, others, revoked)
  }

  // What was left is found and cleared away, if not by the next start then by one that comes later.
  for (const name of await leftovers(home)) {
    const then = Date.now() / 1000 - LONG_AGO_S
    await utimes(join(home, name), then, then)
  }
  await using agent = new FarportProcess('up', '--home', home)
  await agent.ready()
  await farport(['revoke', '--home', home, `other-${OTHER_PEERS - 1}`])
  assert.deepEqual(await leftovers(home), [])
  const lines = (await readFile(join(home, 'audit.log'), 'utf8')).trimEnd().split('\n')
  for (const line of lines) JSON.parse(line)
  say(
    `${kills} kills, ${early} of them before or just after it was ready; ${lines.length} whole lines of audit log`,
  )
  say(`ready again after ${spread(readyMs)}, bytes through three links again after ${spread(backMs)}`)
  say(`files that were left aside: ${left.size}, of them at the end: none`)
}

async function strangers(homes: TwoHomes): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < OTHER_PEERS; i++)
    ids.push((await loadIdentity(homes.path(`other-${i}`), { create: true })).peerId)
  return ids
}

/** A program that is there all the time. */
function program(port: number): Duplex {
  const socket: Socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  return socket
}

/** A program that opens the link as soon as it is there. */
async function openLink(path: string): Promise<Duplex> {
  const port = await linuxPort(path).open({})
  port.on('error', () => {})
  return port
}

/** Says it until it comes back: what was on its way when the connection was lost may be lost with it. */
async function answers(program: Duplex, marker: string): Promise<void> {
  const found = new AbortController()
  let heard = ''
  const listen = (bytes: Buffer) => {
    heard = (heard + bytes.toString('latin1')).slice(-2 * LOAD_BYTES)
    if (heard.includes(marker)) found.abort()
  }
  program.on('data', listen)
  const deadline = performance.now() + BACK_MS
  while (!found.signal.aborted) {
    if (program.destroyed) assert.fail(`the program was turned away before ${marker}`)
    if (performance.now() > deadline) assert.fail(`${marker} did not come back`)
    program.write(marker)
    await delay(100, undefined, { signal: found.signal }).catch(() => {})
  }
  program.off('data', listen)
  program.resume()
}

/** `farport revoke`, killed as well, at any moment. */
async function revokeForAWhile(home: string, name: string): Promise<void> {
  const child = spawn(process.execPath, [MAIN, 'revoke', name, '--home', home], { stdio: 'ignore' })
  const ended = once(child, 'close')
  await Promise.race([ended, delay(randomInt(500), undefined, { ref: false })])
  child.kill('SIGKILL')
  await ended
}

/** Nobody is lost, nobody who was revoked is back, and no line is half a line. */
async function checkTrust(
  clientId: string,
  home: string,
  others: readonly string[],
  before: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  await using trust = await openTrustStore(home, { log })
  // A revocation that was cut short: the key is refused, its line is still there, and says so.
  const problems = trust.problems().filter(({ sentence }) => !/ was revoked on /.test(sentence))
  assert.deepEqual(problems, [])
  const peers = new Set(trust.peers().map(({ peerId }) => peerId))
  const revoked = new Set(trust.revoked().map(({ peerId }) => peerId))
  assert.ok(peers.has(clientId), 'the client is trusted no more')
  for (const peerId of others)
    assert.notEqual(peers.has(peerId), revoked.has(peerId), `${peerId} is lost, or back`)
  for (const peerId of before) assert.ok(revoked.has(peerId), `${peerId} is not revoked any more`)
  return revoked
}

async function leftovers(home: string): Promise<string[]> {
  return (await readdir(home)).filter((name) => !FILES.includes(name))
}

function spread(ms: readonly number[]): string {
  const sorted = ms.toSorted((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN)
  return `${at(0.5)} ms (median; at most ${at(1)} ms)`
}
