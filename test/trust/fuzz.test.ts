import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { bech32m } from '@scure/base'
import sodium from 'libsodium-wrappers-sumo'
import dh from 'noise-handshake/dh.js'
import { FarportError } from '../../src/errors.ts'
import { parseCode } from '../../src/trust/code.ts'
import { CpaceError } from '../../src/trust/cpace.ts'
import { Inviter } from '../../src/trust/inviter.ts'
import type { Attempt } from '../../src/trust/invites.ts'
import { generateStaticKey } from '../../src/trust/noise.ts'
import { PairingError, type PairingEvent } from '../../src/trust/pairing.ts'
import type { PairingSide } from '../../src/trust/pairing-side.ts'
import { decodeTerms, encodeTerms } from '../../src/trust/pairing-terms.ts'
import { parseRevokedPeers } from '../../src/trust/revoked-peers.ts'
import { decodeTicket, encodeTicket } from '../../src/trust/ticket.ts'
import { formatTrustedPeer, parseTrustedPeers } from '../../src/trust/trusted-peers.ts'
import { type FuzzTarget, fuzz } from '../support/fuzz.ts'
import {
  ANNA,
  ANNA_TERMS,
  INVITE_ID,
  joinerOf,
  MALLORY,
  SECRET,
  WORKSHOP,
  WORKSHOP_TERMS,
} from './pairing-ends.ts'

await sodium.ready

const NOW = Date.UTC(2026, 10, 22)
const text = (input: Uint8Array) => Buffer.from(input).toString('utf8')

/** What the work answers with, or `undefined` for the one error that it may throw. */
function orUsage<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof FarportError && error.code === 'ERR_USAGE') {
      assert.ok(error.message.length < 400, error.message)
      return undefined
    }
    throw error
  }
}

const TICKET = {
  peerId: WORKSHOP,
  addresses: ['/ip4/192.0.2.7/tcp/4001', '/ip6/2001:db8::7/tcp/4001', '/dns4/farport.example.org/tcp/4001'],
  relay: `/dns4/relay.example.org/tcp/4001/p2p/${MALLORY}`,
  inviteId: new Uint8Array(8).fill(8),
  secret: new Uint8Array(16).fill(9),
  expires: NOW + 600_000,
}
const TICKETS = [
  encodeTicket(TICKET),
  encodeTicket({ ...TICKET, addresses: TICKET.addresses.slice(0, 1) }),
  encodeTicket({ ...TICKET, addresses: [] }),
]

const bytesOf = (ticket: string) =>
  bech32m.fromWords(bech32m.decode(ticket as `${string}1${string}`, false).words)

function tryTicket(pasted: string): string {
  const ticket = orUsage(() => decodeTicket(pasted, NOW))
  if (ticket === undefined) return 'refused'
  // What was understood can be said again.
  assert.deepEqual(decodeTicket(encodeTicket(ticket), NOW), ticket)
  return 'read'
}

fuzz('a ticket as pasted', () => ({
  corpus: [...TICKETS, ...TICKETS.map((ticket) => `your ticket:\n> ${ticket.toLowerCase()}`)].map((ticket) =>
    Buffer.from(ticket),
  ),
  tokens: ['FARPORT1', 'farport1', ' ', '-', '\n> ', '\u200b', 'ﬀ', 'Ａ', '1', 'B', 'Q', '12D3KooW', '/ip4/'],
  run: (input) => tryTicket(text(input)),
  reach: { refused: 0.3, read: 0.01 },
}))

fuzz('a ticket whose checksum is right', () => ({
  corpus: TICKETS.map((ticket) => bytesOf(ticket)),
  tokens: [
    Uint8Array.of(0x01, 0x08),
    Uint8Array.of(0x02, 0x20),
    Uint8Array.of(0x80, 0),
    Uint8Array.of(0x7f, 0),
    Uint8Array.of(0x04, 192, 0, 2, 7, 0x06, 0x0f, 0xa1),
    Uint8Array.of(0x36, 0x00, 0x06, 0x0f, 0xa1),
    Uint8Array.of(0xa5, 0x03),
  ],
  maxBytes: 62 + 255,
  run: (bytes, random) => {
    // The length that is announced is mostly put right, so that what is inside gets read.
    if (bytes.length >= 62 && random.chance(0.8)) bytes[1] = bytes.length - 62
    if (random.chance(0.8)) bytes[0] = 1
    return tryTicket(bech32m.encode('farport', bech32m.toWords(bytes), false).toUpperCase())
  },
  reach: { refused: 0.2, read: 0.1 },
}))

fuzz(
  'a code as typed',
  () => ({
    corpus: ['101-oil-lion-foil', '734-lunar-maple-copper', '999-zoo-abandon-wrong']
      .flatMap((code) => [code, code.toUpperCase().replaceAll('-', ' ')])
      .map((code) => Buffer.from(code)),
    tokens: [
      '-',
      ' ',
      'zoo',
      'abandon',
      'lunar',
      'O',
      'l',
      'ｌ',
      '\u00ad',
      '\u0301',
      'ß',
      '０',
      '100',
      '999',
      'ǆ',
    ],
    maxBytes: 400,
    run: (input) => {
      const code = orUsage(() => parseCode(text(input)))
      if (code === undefined) return 'refused'
      assert.match(code.nameplate, /^[1-9]\d{2}$/)
      assert.match(String(Buffer.from(code.secret)), /^[a-z]{3,8}(-[a-z]{3,8}){2}$/)
      return 'read'
    },
    reach: { refused: 0.2, read: 0.04 },
  }),
  { runs: 1000 },
)

const LINES = [
  `anna ${ANNA} ports=gps,plc-* may=use,configure,lines expires=2027-06-30`,
  `wall-screen ${MALLORY} ports=* may=watch # in the hall`,
  `workshop ${WORKSHOP} addr=/dns4/relay.example.org/tcp/4001/p2p/${MALLORY}/p2p-circuit,/ip4/192.0.2.7/tcp/1`,
]

fuzz(
  'trusted_peers',
  () => ({
    corpus: [...LINES, LINES.join('\n'), `\uFEFF# name  peer\r\n${LINES.join('\r\n')}\n`].map((line) =>
      Buffer.from(line),
    ),
    tokens: [
      ...['\n', '\r', '\t', ' ', '#', '=', ',', '*', '?', '\0', '\u2028', '\u202e', '..', '/p2p/'],
      ...['ports=*', 'may=steal', 'may=relay', 'expires=9999-12-31', 'addr=', 'watch', 'use', ANNA, MALLORY],
    ],
    run: (input) => {
      const { peers, problems } = parseTrustedPeers(text(input))
      for (const peer of peers)
        assert.deepEqual(parseTrustedPeers(formatTrustedPeer(peer)), { peers: [peer], problems: [] })
      for (const { sentence } of problems) assert.doesNotMatch(sentence, /[\p{Cc}\u2028\u2029\u202e]/u)
      return peers.length === 0 ? 'nobody' : problems.length === 0 ? 'all' : 'some'
    },
    reach: { nobody: 0.05, all: 0.03, some: 0.05 },
  }),
  { runs: 1000 },
)

fuzz('revoked_peers', () => ({
  corpus: [
    `# Revoked\n${ANNA}  # anna, revoked 2027-03-01T09:30:00Z\n${MALLORY}\n`,
    `${ANNA}${MALLORY} # two`,
    `${WORKSHOP}  # a peer, revoked 2027-03-01T09:30:00Z`,
  ].map((line) => Buffer.from(line)),
  tokens: ['\n', '\r', '\t', '#', '\0', '\uFEFF', ', revoked ', ANNA, ANNA.slice(0, 30), MALLORY],
  run: (input) => {
    const file = text(input)
    const { revoked, problems } = parseRevokedPeers(file)
    assert.ok(problems.length <= 20)
    // A PeerID that stands alone on a line is revoked, whatever is around it.
    for (const [peerId] of file.matchAll(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/gm))
      assert.ok(revoked.has(peerId))
    return revoked.size > 0 ? 'some' : 'nobody'
  },
  reach: { some: 0.2, nobody: 0.02 },
}))

fuzz('terms, from one who has the secret', () => ({
  corpus: [encodeTerms(WORKSHOP_TERMS, WORKSHOP), encodeTerms(ANNA_TERMS, WORKSHOP)],
  tokens: [
    ...[
      '"',
      '{',
      '}',
      '[',
      ']',
      ':',
      ',',
      '\\',
      '\\u0000',
      '\\n',
      '\\ud800',
      'null',
      'true',
      '1e999',
      '-0',
      '[[',
    ],
    ...[
      '"name"',
      '"ports"',
      '"may"',
      '"expires"',
      '"addrs"',
      '"__proto__"',
      '"relay"',
      '"*"',
      ' ports=*',
      '#',
    ],
  ],
  maxBytes: 928,
  run: (input) => {
    try {
      const terms = decodeTerms(input, WORKSHOP)
      assert.deepEqual(decodeTerms(encodeTerms(terms, WORKSHOP), WORKSHOP), terms)
      return 'taken'
    } catch (error) {
      assert.ok(error instanceof PairingError && error.reason === 'terms', String(error))
      return 'refused'
    }
  },
  reach: { taken: 0.02, refused: 0.3 },
}))

// The pairing, at each of its messages.

/**
 * With the randomness fixed, a pairing says the same each time, and what CPace multiplied once can be looked up: so the
 * way to the message that is damaged costs little, and the damaged one itself is worked on in earnest. Not by mocks of
 * node:test, which keep every call.
 */
class FixedRandomness implements Disposable {
  /** Whose scalar and keys are drawn. */
  side: 'joiner' | 'inviter' = 'joiner'
  readonly #stack = new DisposableStack()

  constructor() {
    const scalars = { joiner: scalarOf(), inviter: scalarOf() }
    const keys = { joiner: generateStaticKey(), inviter: generateStaticKey() }
    this.#replace(crypto, 'randomBytes', (length: number) => Buffer.alloc(length, 7))
    syncBuiltinESMExports()
    this.#replace(sodium, 'crypto_core_ristretto255_scalar_random', () => Uint8Array.from(scalars[this.side]))
    this.#replace(dh, 'generateKeyPair', () => {
      const { publicKey, secretKey } = keys[this.side]
      return { publicKey: Uint8Array.from(publicKey), secretKey: Uint8Array.from(secretKey) }
    })
    for (const name of ['crypto_core_ristretto255_from_hash', 'crypto_scalarmult_ristretto255'] as const)
      this.#replace(sodium, name, remembering(sodium[name] as unknown as Work))
  }

  [Symbol.dispose](): void {
    this.#stack.dispose()
    syncBuiltinESMExports()
  }

  #replace<T extends object, K extends keyof T>(object: T, name: K, by: unknown): void {
    const original = object[name]
    object[name] = by as T[K]
    this.#stack.defer(() => {
      object[name] = original
    })
  }
}

const scalarOf = () => sodium.crypto_core_ristretto255_scalar_random() as Uint8Array

type Work = (...args: Uint8Array[]) => Uint8Array

/** Looks up the first few results, and works out all others. */
function remembering(work: Work): Work {
  const known = new Map<string, Uint8Array>()
  return (...args) => {
    const key = args.map((arg) => Buffer.from(arg).toString('latin1')).join()
    const result = known.get(key) ?? work(...args)
    if (known.size < 8) known.set(key, Uint8Array.from(result))
    return Uint8Array.from(result)
  }
}

/** Tries of one invite: how many were taken, how many given back as failed. */
class Tries {
  taken = 0
  failed = 0

  begin(id: Uint8Array): Attempt {
    if (Buffer.compare(id, INVITE_ID) !== 0) throw new PairingError('unknown-invite')
    this.taken++
    return {
      secret: Uint8Array.from(SECRET),
      terms: WORKSHOP_TERMS,
      encodedTerms: ENCODED_TERMS,
      fail: () => this.failed++,
      commit: () => assert.fail('nobody has asked for it'),
    }
  }
}

const ENCODED_TERMS = encodeTerms(WORKSHOP_TERMS, WORKSHOP)

/** Frames M0 to M6 of the one pairing there is under this randomness; M7 is always the same. */
function record(fixed: FixedRandomness): Uint8Array[] {
  const tries = new Tries()
  const sides = { joiner: joinerOf(), inviter: inviterOf(tries) }
  const frames = take(sides.joiner.start())
  for (let i = 0; i < 6; i++) {
    fixed.side = i % 2 === 0 ? 'inviter' : 'joiner'
    frames.push(...take(sides[fixed.side].push(frames[i] as Uint8Array)))
  }
  return [...frames, Uint8Array.of(0, 1, 0)]
}

const take = (events: PairingEvent[]) =>
  events.flatMap((event) => (event.type === 'send' ? [event.bytes] : []))
const inviterOf = (tries: Tries) =>
  new Inviter({ self: WORKSHOP, joiner: ANNA, begin: (id) => tries.begin(id) })

/**
 * How far a damaged message got: `frame` and `format` died without cryptography, `cpace` and `noise` were refused by it,
 * `went on` was as good as the genuine one, as far as this message can tell.
 */
function layerOf(events: PairingEvent[]): string {
  const last = events.at(-1)
  if (last === undefined) return 'incomplete'
  if (last.type !== 'failed') return 'went on'
  if (last.cause instanceof CpaceError) return 'cpace'
  return last.reason === 'wrong-secret' ? 'noise' : 'format'
}

/** The side that hears message `index` gets damaged bytes in its place. */
function damaged(index: number, reach: FuzzTarget['reach']): void {
  fuzz(
    `M${index} of a pairing`,
    (t) => {
      const fixed = new FixedRandomness()
      t.after(() => fixed[Symbol.dispose]())
      const frames = record(fixed)
      const genuine = frames[index] as Uint8Array
      fixed.side = index % 2 === 0 ? 'inviter' : 'joiner'
      return {
        // Mostly its own, and the others, which come at the wrong time.
        corpus: [...Array<Uint8Array>(24).fill(genuine), ...frames],
        tokens: [Uint8Array.of(0, 1, 1), Uint8Array.of(0, 0), Uint8Array.of(4, 1), ...NO_POINTS, ...frames],
        sameLength: 0.6,
        run(input, random) {
          const tries = new Tries()
          const side: PairingSide = index % 2 === 0 ? inviterOf(tries) : joinerStarted()
          for (let i = index % 2; i < index; i += 2)
            assert.equal(take(side.push(frames[i] as Uint8Array)).length, 1)
          const cut = random.below(input.length + 1)
          const events = [...side.push(input.subarray(0, cut)), ...side.push(input.subarray(cut))]
          const isGenuine = Buffer.compare(input.subarray(0, genuine.length), genuine) === 0
          for (const { type } of events)
            if (!isGenuine) assert.ok(type === 'send' || type === 'failed', `${type} after a damaged message`)
          if (!isGenuine && index > 3) assert.ok(!events.some(isProof), 'proven by a damaged message')
          side.end('closed')
          assert.deepEqual(side.push(genuine), [])
          assert.equal(tries.failed, tries.taken)
          return isGenuine ? 'genuine' : layerOf(events)
        },
        reach,
      }
    },
    { runs: 250, share: 1 / 8 },
  )
}

/** A further message of the pairing, and not the one that says that it failed. */
const isProof = (event: PairingEvent) => event.type === 'send' && event.bytes.length > 3

function joinerStarted(): PairingSide {
  const joiner = joinerOf()
  joiner.start()
  return joiner
}

const NO_POINTS = ['00'.repeat(32), `01${'00'.repeat(31)}`, `f3${'ff'.repeat(30)}7f`].map((digits) =>
  Buffer.from(digits, 'hex'),
)

damaged(0, { format: 0.1, 'went on': 0.1 })
damaged(1, { format: 0.1, 'went on': 0.1 })
damaged(2, { format: 0.1, cpace: 0.1, 'went on': 0.1 })
damaged(3, { format: 0.1, cpace: 0.1, 'went on': 0.1 })
damaged(4, { noise: 0.4 })
damaged(5, { noise: 0.4 })
damaged(6, { noise: 0.4 })
damaged(7, { format: 0.3 })
