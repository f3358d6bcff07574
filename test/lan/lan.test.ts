import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { NetworkInterfaceInfo } from 'node:os'
import { createInterface } from 'node:readline'
import { describe, test } from 'node:test'
import { type Answer, decode, encode, type Packet } from '@dnsquery/dns-packet'
import { announceOnLan, findOnLan, type LanPeer } from '../../src/lan/lan.ts'
import { createLog } from '../../src/log.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { deadline } from '../overlay/nodes.ts'
import { type LanPeerArguments, type LanPeerCommand, loopback } from './lan-peer.ts'

const GROUP = '224.0.0.251'
const PORT = 5353
const BIND_TO = process.platform === 'linux' ? GROUP : '0.0.0.0'
const log = createLog('silent')
const newPeerId = () => formatPeerId(randomBytes(32))
/** Not three digits, so that no other run of these tests has the same. */
const newNameplate = () => randomBytes(6).toString('hex')

async function announce(
  nameplate: string,
  peerId: string,
  addresses: readonly string[],
): Promise<AsyncDisposable> {
  return await announceOnLan({ nameplate, peerId, addresses: () => addresses, interfaces: loopback, log })
}

/** Takes so many findings. */
async function find(nameplate: string, count: number): Promise<LanPeer[]> {
  const found: LanPeer[] = []
  for await (const peer of findOnLan(nameplate, { signal: deadline(), interfaces: loopback, log })) {
    found.push(peer)
    if (found.length === count) return found
  }
  throw new Error(`found only ${JSON.stringify(found)}`)
}

/** Another mDNS program on this machine. */
class Wire implements AsyncDisposable {
  readonly heard: { atMs: number; packet: Packet }[] = []
  readonly #socket: Socket

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('message', (bytes) => {
      try {
        this.heard.push({ atMs: performance.now(), packet: decode(bytes) })
      } catch {
        // Other tests send what can't be read.
      }
    })
  }

  static async open({ port = PORT, address = BIND_TO } = {}): Promise<Wire> {
    const socket = createSocket({ type: 'udp4', reuseAddr: true })
    socket.bind(port, address)
    await once(socket, 'listening')
    socket.addMembership(GROUP, '127.0.0.1')
    socket.setMulticastInterface('127.0.0.1')
    return new Wire(socket)
  }

  async send(what: Packet | Uint8Array): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#socket.send(what instanceof Uint8Array ? what : encode(what), PORT, GROUP, () => resolve())
    await promise
  }

  /** When which answers were heard for a peer. */
  answers(peerId: string): { atMs: number; ttl: number | undefined }[] {
    return this.heard.flatMap(({ atMs, packet }) =>
      (packet.type === 'response' ? (packet.answers ?? []) : [])
        .filter((record) => record.type === 'PTR' && record.data.startsWith(peerId))
        .map(({ ttl }: { ttl?: number | undefined }) => ({ atMs, ttl })),
    )
  }

  questions(nameplate: string): number {
    const name = subtype(nameplate)
    return this.heard.filter(
      ({ packet }) => packet.type === 'query' && packet.questions?.some((question) => question.name === name),
    ).length
  }

  /** Resolves when somebody has asked for the nameplate. */
  async asked(nameplate: string, times = 1): Promise<void> {
    await this.until(() => this.questions(nameplate) >= times)
  }

  async until(condition: () => boolean): Promise<void> {
    const signal = deadline()
    while (!condition()) await once(this.#socket, 'message', { signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#socket, 'close')
    this.#socket.close()
    await closed
  }
}

const subtype = (nameplate: string) => `_${nameplate}._sub._farport._tcp.local`

function questionFor(nameplate: string, known: readonly string[] = []): Packet {
  return {
    type: 'query',
    questions: [{ type: 'PTR', name: subtype(nameplate) }],
    answers: known.map((peerId) => pointer(nameplate, peerId)),
  }
}

function answerFrom(nameplate: string, peerId: string, addresses: readonly string[]): Packet {
  const txt: Answer = {
    type: 'TXT',
    name: `${peerId}._farport._tcp.local`,
    ttl: 120,
    data: addresses.map((address) => `addr=${address}`),
  }
  return { type: 'response', answers: [pointer(nameplate, peerId)], additionals: [txt] }
}

function pointer(nameplate: string, peerId: string): Answer {
  return { type: 'PTR', name: subtype(nameplate), ttl: 120, data: `${peerId}._farport._tcp.local` }
}

/** The other side in another process, perhaps in another network namespace. */
class Process implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown[]>
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#exit = once(child, 'exit')
    assert.ok(child.stdout)
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  }

  static async start(command: LanPeerCommand, args: LanPeerArguments, namespace?: string): Promise<Process> {
    const script = new URL('lan-peer.ts', import.meta.url).pathname
    const node = [process.execPath, script, command, JSON.stringify(args)]
    const [file = '', ...rest] = namespace === undefined ? node : ['ip', 'netns', 'exec', namespace, ...node]
    const started = new Process(spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'], timeout: 15_000 }))
    assert.deepEqual(await started.line(), { ready: true })
    return started
  }

  async line(): Promise<unknown> {
    const { value, done } = await this.#lines.next()
    assert.ok(done !== true, 'it has ended')
    return JSON.parse(value)
  }

  /** Ends by itself when asked to. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end()
    assert.deepEqual(await this.#exit, [0, null])
  }
}

/** Two hosts with one cable, not plugged in at first, and no other network. */
class Cable implements Disposable {
  readonly hosts: readonly [string, string] = [`farport${process.pid}a`, `farport${process.pid}b`]

  constructor() {
    try {
      for (const host of this.hosts) {
        ip('netns', 'add', host)
        ip('-n', host, 'link', 'set', 'lo', 'up')
      }
    } catch (error) {
      this[Symbol.dispose]()
      throw error
    }
  }

  plugIn(): void {
    const [a, b] = this.hosts
    ip('-n', a, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', b)
    ip('-n', a, 'address', 'add', '192.0.2.1/24', 'dev', 'cable')
    ip('-n', b, 'address', 'add', '192.0.2.2/24', 'dev', 'cable')
    for (const host of this.hosts) ip('-n', host, 'link', 'set', 'cable', 'up')
  }

  /** The interfaces are gone then, as those of USB adapters. */
  unplug(): void {
    ip('-n', this.hosts[0], 'link', 'delete', 'cable')
  }

  [Symbol.dispose](): void {
    for (const host of this.hosts) {
      try {
        ip('netns', 'delete', host)
      } catch {
        // It was not made.
      }
    }
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

function noNamespaces(): string | false {
  if (process.platform !== 'linux') return 'only Linux has network namespaces'
  if (process.getuid?.() !== 0) return 'only root can make network namespaces'
  try {
    using cable = new Cable()
    cable.plugIn()
    return false
  } catch (error) {
    if (process.env.CI) throw error
    return `no network namespaces here: ${(error as Error).message.trim()}`
  }
}

test('who announces a nameplate is found by it, with addresses that can be dialed', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  await using _announcement = await announce(nameplate, peerId, [
    `/ip4/127.0.0.1/tcp/4001/p2p/${peerId}`,
    '/dns4/gate.example.org/tcp/4001',
    `/ip4/192.0.2.9/tcp/4001/p2p/${newPeerId()}/p2p-circuit/p2p/${peerId}`,
    `/ip4/192.0.2.9/tcp/4001/p2p/${newPeerId()}`,
    '/ip4/192.0.2.9/udp/4001/quic-v1',
  ])
  assert.deepEqual(await find(nameplate, 1), [
    { peerId, addresses: ['/ip4/127.0.0.1/tcp/4001', '/dns4/gate.example.org/tcp/4001'] },
  ])
})

test('who listens on all addresses announces those of each network', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  await using _announcement = await announce(nameplate, peerId, ['/ip4/0.0.0.0/tcp/4001'])
  assert.deepEqual(await find(nameplate, 1), [{ peerId, addresses: ['/ip4/127.0.0.1/tcp/4001'] }])
})

test('a network is not told what belongs to other networks', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  const elsewhere = { eth9: [{ address: '192.0.2.99', cidr: null, family: 'IPv6' } as NetworkInterfaceInfo] }
  await using _announcement = await announceOnLan({
    nameplate,
    peerId,
    addresses: () =>
      ['99', '98'].map((host) => `/ip4/192.0.2.${host}/tcp/4001`).concat('/ip4/127.0.0.9/tcp/4001'),
    interfaces: () => ({ ...elsewhere, ...loopback() }),
    log,
  })
  assert.deepEqual(await find(nameplate, 1), [{ peerId, addresses: ['/ip4/192.0.2.98/tcp/4001'] }])
})

test('of too many addresses those of the network itself are announced first', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  const others = Array.from({ length: 20 }, (_, k) => `/dns4/host${k}.example/tcp/4001`)
  await using _announcement = await announce(nameplate, peerId, [...others, '/ip4/127.0.0.1/tcp/4001'])
  assert.deepEqual(await find(nameplate, 1), [
    { peerId, addresses: ['/ip4/127.0.0.1/tcp/4001', ...others.slice(0, 7)] },
  ])
})

test('all who say that a nameplate is theirs are found, and nobody else', async () => {
  const nameplate = newNameplate()
  const another = newNameplate()
  const [anna, bert, carl] = [newPeerId(), newPeerId(), newPeerId()] as const
  await using _anna = await announce(nameplate, anna, ['/dns4/anna.example/tcp/1'])
  await using _carl = await announce(another, carl, ['/dns4/carl.example/tcp/3'])
  await using _bert = await announce(nameplate, bert, ['/dns4/bert.example/tcp/2'])
  const found = await find(nameplate, 2)
  assert.deepEqual(new Set(found.map(({ peerId }) => peerId)), new Set([anna, bert]))
})

test('who asks before the invite is opened finds it when it is', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  await using wire = await Wire.open()
  const found = find(nameplate, 1)
  await wire.asked(nameplate)
  await using _announcement = await announce(nameplate, peerId, ['/ip4/127.0.0.1/tcp/4001'])
  assert.equal((await found)[0]?.peerId, peerId)
})

test('a peer comes again only with what is new', async () => {
  const nameplate = newNameplate()
  const peerId = newPeerId()
  await using wire = await Wire.open()
  const found = find(nameplate, 2)
  await wire.asked(nameplate)
  await wire.send(answerFrom(nameplate, peerId, ['/ip4/192.0.2.1/tcp/1']))
  await wire.send(answerFrom(nameplate, peerId, ['/ip4/192.0.2.1/tcp/1']))
  await wire.send(answerFrom(nameplate, peerId, ['/ip4/192.0.2.2/tcp/2', '/ip4/192.0.2.1/tcp/1']))
  assert.deepEqual(await found, [
    { peerId, addresses: ['/ip4/192.0.2.1/tcp/1'] },
    { peerId, addresses: ['/ip4/192.0.2.2/tcp/2'] },
  ])
})

test('one who answers in many names, or with many addresses, is heard out only so far', async () => {
  const nameplate = newNameplate()
  const peerIds = Array.from({ length: 40 }, newPeerId)
  const [first = '', second = ''] = peerIds
  const address = (k: number) => `/ip4/192.0.2.${k}/tcp/1`
  await using wire = await Wire.open()
  const found = find(nameplate, 16 + 7 + 1)
  await wire.asked(nameplate)
  for (const peerId of peerIds) await wire.send(answerFrom(nameplate, peerId, [address(0)]))
  for (let k = 1; k < 20; k++) await wire.send(answerFrom(nameplate, first, [address(k)]))
  await wire.send(answerFrom(nameplate, second, [address(1)]))
  assert.deepEqual(await found, [
    ...peerIds.slice(0, 16).map((peerId) => ({ peerId, addresses: [address(0)] })),
    ...[1, 2, 3, 4, 5, 6, 7].map((k) => ({ peerId: first, addresses: [address(k)] })),
    { peerId: second, addresses: [address(1)] },
  ])
})

test('what does not come from an mDNS port is nobody’s answer', async () => {
  const nameplate = newNameplate()
  const [anna, mallory] = [newPeerId(), newPeerId()] as const
  await using wire = await Wire.open()
  await using stranger = await Wire.open({ port: 0, address: '0.0.0.0' })
  const found = find(nameplate, 1)
  await wire.asked(nameplate)
  await stranger.send(answerFrom(nameplate, mallory, ['/ip4/192.0.2.66/tcp/1']))
  await wire.send(answerFrom(nameplate, anna, ['/ip4/192.0.2.1/tcp/1']))
  assert.equal((await found)[0]?.peerId, anna)
})

test('who is not on a network is not heard there', {
  skip: process.platform !== 'linux' && 'only Linux has the addresses for it',
}, async () => {
  const nameplate = newNameplate()
  const [anna, mallory] = [newPeerId(), newPeerId()] as const
  await using wire = await Wire.open()
  await using stranger = await Wire.open({ address: '127.0.0.2' })
  const alone = () => ({ lo: [{ ...loopback().lo?.[0], cidr: '127.0.0.1/32' } as NetworkInterfaceInfo] })
  const finding = findOnLan(nameplate, { signal: deadline(), interfaces: alone, log })
  const next = finding.next()
  await wire.asked(nameplate)
  await stranger.send(answerFrom(nameplate, mallory, ['/ip4/192.0.2.66/tcp/1']))
  await wire.send(answerFrom(nameplate, anna, ['/ip4/192.0.2.1/tcp/1']))
  assert.equal((await next).value?.peerId, anna)
  await finding.return(undefined)
})

test('hostile packets disturb neither side', async () => {
  const nameplate = newNameplate()
  const [anna, mallory] = [newPeerId(), newPeerId()] as const
  await using wire = await Wire.open()
  const found = find(nameplate, 1)
  await wire.asked(nameplate)
  const question = encode(questionFor(nameplate))
  const answer = encode(answerFrom(nameplate, mallory, ['/ip4/192.0.2.66/tcp/1']))
  const hostile = [
    Buffer.alloc(0),
    Buffer.alloc(12, 0xff),
    randomBytes(1400),
    question.subarray(0, -1),
    answer.subarray(0, -1),
    Buffer.concat([question.subarray(0, 12), Buffer.from('c00c', 'hex')]),
    encode(answerFrom(nameplate, 'nobody', ['/ip4/192.0.2.66/tcp/1'])),
    encode(answerFrom(nameplate, mallory, ['/ip4/192.0.2.66/udp/1', '/dns4/127.1/tcp/1'])),
  ]
  for (const bytes of hostile) await wire.send(bytes)
  await using _announcement = await announce(nameplate, anna, ['/ip4/127.0.0.1/tcp/4001'])
  for (const bytes of hostile) await wire.send(bytes)
  assert.equal((await found)[0]?.peerId, anna)
})

test('who no longer wants to know is told no more', async () => {
  const over = new AbortController()
  const finding = findOnLan(newNameplate(), { signal: over.signal, interfaces: loopback, log })
  const next = finding.next()
  over.abort()
  assert.deepEqual(await next, { value: undefined, done: true })
  const never = findOnLan(newNameplate(), { signal: over.signal, interfaces: loopback, log })
  assert.deepEqual(await never.next(), { value: undefined, done: true })
})

// Each of them waits most of the time.
describe('as time goes by', { concurrency: true }, () => {
  test('however often one asks, a network hears an answer once a second', async () => {
    const nameplate = newNameplate()
    const [anna, bert] = [newPeerId(), newPeerId()] as const
    await using wire = await Wire.open()
    await using _anna = await announce(nameplate, anna, ['/dns4/anna.example/tcp/1'])
    await using _bert = await announce(nameplate, bert, ['/dns4/bert.example/tcp/2'])
    const flood = setInterval(() => wire.send(questionFor(nameplate, [anna])), 10)
    try {
      // Unasked, after 0, 1 and 3 seconds.
      await wire.until(() => wire.answers(anna).length === 3)
    } finally {
      clearInterval(flood)
    }
    const [, second, third] = wire.answers(anna)
    assert.ok((third?.atMs ?? 0) - (second?.atMs ?? 0) > 1500, 'anna answers who knows her already')
    const count = wire.answers(bert).length
    assert.ok(count >= 3 && count <= 5, `bert answered ${count} times in 3 s`)
  })

  test('an announcement is taken back when it ends, and nothing is said any more', async () => {
    const nameplate = newNameplate()
    const [anna, bert] = [newPeerId(), newPeerId()] as const
    await using wire = await Wire.open()
    await using _bert = await announce(nameplate, bert, ['/dns4/bert.example/tcp/2'])
    const announcement = await announce(nameplate, anna, ['/dns4/anna.example/tcp/1'])
    await wire.until(() => wire.answers(anna).length > 0)
    await wire.send(questionFor(nameplate))
    await announcement[Symbol.asyncDispose]()
    await wire.until(() => wire.answers(anna).at(-1)?.ttl === 0)
    const said = wire.answers(anna).length
    const answered = wire.answers(bert).length
    await wire.send(questionFor(nameplate))
    await wire.until(() => wire.answers(bert).length > answered)
    assert.equal(wire.answers(anna).length, said)
  })

  test('who has stopped to look asks no more, even while busy with what was found', async () => {
    const [nameplate, another] = [newNameplate(), newNameplate()] as const
    const over = new AbortController()
    await using wire = await Wire.open()
    const finding = findOnLan(nameplate, { signal: over.signal, interfaces: loopback, log })
    const next = finding.next()
    await wire.asked(nameplate)
    await wire.send(answerFrom(nameplate, newPeerId(), ['/ip4/192.0.2.1/tcp/1']))
    await next
    over.abort()
    const later = findOnLan(another, { signal: deadline(), interfaces: loopback, log })
    const never = later.next()
    await wire.asked(another, 2)
    assert.equal(wire.questions(nameplate), 1)
    await wire.send(answerFrom(another, newPeerId(), ['/ip4/192.0.2.1/tcp/1']))
    await never
    await later.return(undefined)
  })

  test('a network that can’t be used, or comes later, does no harm', async () => {
    const nameplate = newNameplate()
    const peerId = newPeerId()
    let networks: ReturnType<typeof loopback> = {}
    await using _announcement = await announceOnLan({
      nameplate,
      peerId,
      addresses: () => ['/ip4/127.0.0.1/tcp/4001'],
      interfaces: () => networks,
      log,
    })
    const [lo = []] = Object.values(loopback())
    const gone = lo.map((one) => ({ ...one, address: '192.0.2.99', cidr: '192.0.2.99/24' }))
    networks = { gone, ...loopback() }
    assert.equal((await find(nameplate, 1))[0]?.peerId, peerId)
  })

  test('two processes on one machine find each other, both ways', async () => {
    const nameplate = newNameplate()
    const [anna, bert] = [newPeerId(), newPeerId()] as const
    const addresses = ['/ip4/127.0.0.1/tcp/4001']
    await using _anna = await Process.start('announce', {
      nameplate,
      peerId: anna,
      addresses,
      loopback: true,
    })
    assert.deepEqual(await find(nameplate, 1), [{ peerId: anna, addresses }])
    await using _bert = await announce(nameplate, bert, addresses)
    await using finder = await Process.start('find', { nameplate, loopback: true })
    const found = [await finder.line(), await finder.line()] as LanPeer[]
    assert.deepEqual(new Set(found.map(({ peerId }) => peerId)), new Set([anna, bert]))
  })

  test('two hosts on a cable without any router find each other', { skip: noNamespaces() }, async () => {
    const nameplate = '734'
    const [anna, mallory] = [newPeerId(), newPeerId()] as const
    using cable = new Cable()
    const [a, b] = cable.hosts
    await using finder = await Process.start('find', { nameplate }, b)
    const addresses = ['/ip4/0.0.0.0/tcp/4001', '/ip4/127.0.0.1/tcp/4002', '/dns4/gate.example.org/tcp/4003']
    await using _anna = await Process.start('announce', { nameplate, peerId: anna, addresses }, a)
    const lies = [
      '/ip4/127.0.0.1/tcp/1',
      '/ip6/::ffff:127.0.0.1/tcp/1',
      '/dns4/localhost/tcp/1',
      '/dns4/m.example/tcp/1',
    ]
    await using _mallory = await Process.start('lie', { nameplate, peerId: mallory, addresses: lies }, a)
    cable.plugIn()
    const found = [await finder.line(), await finder.line()] as LanPeer[]
    assert.deepEqual(Object.fromEntries(found.map((peer) => [peer.peerId, peer.addresses])), {
      [anna]: ['/ip4/192.0.2.1/tcp/4001', '/dns4/gate.example.org/tcp/4003'],
      // What leads back to the one who dials is left out.
      [mallory]: ['/dns4/m.example/tcp/1'],
    })

    cable.unplug()
    cable.plugIn()
    await using another = await Process.start('find', { nameplate }, b)
    assert.ok(await another.line())
    assert.ok(await another.line())
  })
})
