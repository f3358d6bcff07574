/** Who is turned away by a machine that invites, and what it can tell from how. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { AuditEvent } from '../../src/daemon/audit-log.ts'
import { type InviteEvent, Pairing } from '../../src/daemon/pairing.ts'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import type { Overlay } from '../../src/overlay/node.ts'
import { parseCode } from '../../src/trust/code.ts'
import { INVITE_LIFETIME_MS, Invites } from '../../src/trust/invites.ts'
import { serveInvite } from '../../src/trust/pair-stream.ts'
import { inviteIdOf, PAIR_PROTOCOL } from '../../src/trust/pairing.ts'
import { openTrustStore, type TrustStore } from '../../src/trust/trust-store.ts'
import { closed, deadline, NodePair, readAll, startNode, until } from '../overlay/nodes.ts'
import { framed, SECRET, WORKSHOP_TERMS } from '../trust/pairing-ends.ts'

const log = createLog('silent')
/** All that is ever said to one who is turned away: one message, and the end of the stream. */
const FAILED = '000101'
const helloFor = (inviteId: Uint8Array) => framed(1, ...inviteId, ...Buffer.alloc(16, 7))

/** A machine of its own, which can invite and join. */
class Machine implements AsyncDisposable {
  readonly overlay: Overlay
  readonly trust: TrustStore
  readonly pairing: Pairing
  readonly audited: AuditEvent[] = []
  readonly told: InviteEvent[] = []
  readonly #stack: AsyncDisposableStack

  private constructor(overlay: Overlay, trust: TrustStore, stack: AsyncDisposableStack) {
    this.overlay = overlay
    this.trust = trust
    const audit = { record: (event: AuditEvent) => this.audited.push(event) }
    const stays = (peerId: string) => trust.admits(peerId)
    this.pairing = stack.use(new Pairing({ overlay, trust, name: 'workshop', audit, stays, log }))
    this.#stack = stack
  }

  static async start(): Promise<Machine> {
    const stack = new AsyncDisposableStack()
    const home = await mkdtemp(join(tmpdir(), 'farport-pairing-'))
    stack.defer(() => rm(home, { recursive: true, force: true }))
    const trust = stack.use(await openTrustStore(home, { log }))
    let pairing: Pairing | undefined
    const admits = (peerId: string) => trust.admits(peerId) || (pairing?.admits(peerId) ?? false)
    const machine = new Machine(stack.use(await startNode({ admits })), trust, stack)
    pairing = machine.pairing
    await machine.overlay.handle(PAIR_PROTOCOL, (stream, from) => void machine.pairing.serve(stream, from))
    return machine
  }

  /** Opens an invite, and answers with its code. */
  async invite(): Promise<string> {
    const stop = new AbortController()
    const request = { form: 'code', ports: ['gps'], may: ['use'] } as const
    const over = this.pairing.invite(request, (event) => this.told.push(event), stop.signal)
    this.#stack.defer(async () => {
      stop.abort()
      await over
    })
    await until(() => this.told.length > 0)
    const [open] = this.told
    assert.ok(open?.event === 'invite')
    return open.text
  }

  get refusals(): string[] {
    return this.audited.flatMap((event) => (event.event === 'refuse' ? [event.reason] : []))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

const open = async (from: Overlay, to: Overlay, protocol = PAIR_PROTOCOL) =>
  (await from.open(to.peerId, protocol, { addresses: to.addresses(), signal: deadline() })).stream

test('a revoked peer is not let in to pair, not even while an invite is open; others are', async () => {
  await using workshop = await Machine.start()
  await using revoked = await startNode()
  await using stranger = await startNode()
  await workshop.trust.revoke([revoked.peerId])
  const { nameplate } = parseCode(await workshop.invite())

  await assert.rejects(open(revoked, workshop.overlay), FarportError)
  const stream = await open(stranger, workshop.overlay)
  stream.write(helloFor(inviteIdOf(nameplate)))
  await until(() => stream.readableLength > 0)
  stream.end()
  await until(() => workshop.told.length > 1)
  // The first try that anything was taken off for.
  assert.deepEqual(workshop.told[1], { event: 'attempt', reason: 'closed', triesLeft: 2 })
})

test('a peer that is revoked when it is already in costs the invite nothing', async () => {
  await using workshop = await Machine.start()
  await using joiner = await startNode()
  const { nameplate } = parseCode(await workshop.invite())
  const stream = await open(joiner, workshop.overlay)
  await workshop.trust.revoke([joiner.peerId])
  stream.write(helloFor(inviteIdOf(nameplate)))
  assert.equal((await readAll(stream)).toString('hex'), FAILED)
  await until(() => workshop.refusals.length > 0)
  assert.deepEqual(workshop.refusals, ['pairing failed: revoked'])
  assert.equal(workshop.told.length, 1)
})

test('who invites is not called when we have revoked it: its invite would be spent for nothing', async () => {
  await using workshop = await Machine.start()
  await using anna = await Machine.start()
  const code = await workshop.invite()
  await anna.trust.revoke([workshop.overlay.peerId])
  const [at = ''] = workshop.overlay.addresses()
  await assert.rejects(
    anna.pairing.join(code, { at, signal: deadline() }),
    (error) =>
      error instanceof FarportError && error.code === 'ERR_NOT_TRUSTED' && /was revoked/.test(error.message),
  )
  assert.deepEqual(workshop.overlay.paths(), [])
  assert.equal(workshop.told.length, 1)
})

test('unknown, expired, used, burnt and cancelled invites answer with the same bytes over a connection', async () => {
  await using nodes = await NodePair.start()
  let nowMs = 0
  using invites = new Invites({ self: nodes.far.peerId, record: async (peer) => peer, clock: () => nowMs })
  const reasons: string[] = []
  invites.on('refused', (_id, reason) => reasons.push(reason))
  await nodes.far.handle(PAIR_PROTOCOL, (stream, { peerId: joiner }) => {
    void serveInvite(stream, { self: nodes.far.peerId, joiner, invites, signal: deadline() })
  })
  const ids = ['unknown', 'expired', 'used', 'burnt', 'cancelled'].map((_, i) => inviteIdOf(`10${i}`))
  const [, expired, used, burnt, cancelled] = ids as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ]
  const offer = (id: Uint8Array) => invites.open({ id, secret: SECRET, terms: WORKSHOP_TERMS })
  let others = 0
  const begin = (id: Uint8Array) => invites.begin(id, { peerId: `other ${others++}` })
  offer(expired)
  nowMs += INVITE_LIFETIME_MS
  offer(used)
  await begin(used).commit({ name: 'anna', peerId: nodes.near.peerId, ports: [], may: [], addrs: [] })
  offer(burnt)
  for (let i = 0; i < 3; i++) begin(burnt).fail('wrong-secret')
  offer(cancelled)
  invites.cancel(cancelled)

  for (const id of ids) {
    nowMs += 61_000
    const stream = await open(nodes.near, nodes.far)
    stream.write(helloFor(id))
    assert.equal((await readAll(stream)).toString('hex'), FAILED)
    stream.end()
    assert.equal(await closed(stream), null)
  }
  assert.deepEqual(reasons, ['unknown-invite', ...Array(4).fill('invite-over')])
})
