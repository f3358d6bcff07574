/**
 * A rotation in a process of its own, killed on the way: `rotation-child.ts HOME PEER_HOME SIDE STEP NOW` goes through the
 * whole of it, prints the steps that touch the files of that side, and dies by SIGKILL at the step of that number. The side
 * is `ours`, the home that gets a new key, or `theirs`, the peer that notes it and then sees it used. With NOW `now`, a third
 * peer can't be reached, and the old key is kept.
 */
import { EventEmitter } from 'node:events'
import { writeSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import type { Peers } from '../../src/daemon/peers.ts'
import { Rotation } from '../../src/daemon/rotation.ts'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import type { Overlay, Path } from '../../src/overlay/node.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { openTrustStore } from '../../src/trust/trust-store.ts'
import { CarrierPair } from '../support/carrier.ts'

const [home = '', peerHome = '', side, fatal, how] = process.argv.slice(2)
const watched = side === 'ours' ? home : peerHome
let steps = 0

function step(name: string, path: unknown): void {
  if (!String(path).startsWith(watched)) return
  writeSync(1, `${name}\n`)
  if (++steps === Number(fatal)) process.kill(process.pid, 'SIGKILL')
}

const log = createLog('silent')
const [ourKey, theirKey] = [
  await loadIdentity(home, { create: false }),
  await loadIdentity(peerHome, { create: false }),
]
await using trust = await openTrustStore(home, { log })
await using peerTrust = await openTrustStore(peerHome, { log })

/** What a rotation sees of a node, without a network. */
class Node extends EventEmitter {
  readonly peerId: string
  constructor(peerId: string) {
    super()
    this.peerId = peerId
  }
  paths(): Path[] {
    return []
  }
}
const [ourNode, theirNode] = [new Node(ourKey.peerId), new Node(theirKey.peerId)]
const pathTo = (peerId: string) => ({ peerId, remoteAddress: '/memory' }) as Path
const nobody: Pick<Peers, 'reach'> = {
  reach: () => Promise.reject(new FarportError('ERR_PEER_UNREACHABLE', 'no')),
}
const node = (stub: Node) => stub as unknown as Overlay

using theirs = new Rotation({
  ...{ home: peerHome, identity: theirKey, overlay: node(theirNode), trust: peerTrust },
  ...{ peers: nobody, announces: false, log },
})
const peers: Pick<Peers, 'reach'> = {
  async reach({ name, peerId }, protocol, signal) {
    if (name !== 'shop')
      return await nobody.reach({ name, peerId, ports: [], may: [], addrs: [] }, protocol, signal)
    const pair = new CarrierPair()
    void theirs.serve(pair.b, pathTo(ourKey.peerId))
    return { stream: pair.a, path: pathTo(peerId) }
  },
}
using ours = new Rotation({
  ...{ home, identity: ourKey, overlay: node(ourNode), trust, peers, announces: true, log },
})
spyOnWriting()
await ours.resume()
const { newPeerId } = await ours.rotate({ now: how === 'now' }, new AbortController().signal)
// The first connection with the new key.
const used = new Promise((resolve) => peerTrust.once('change', resolve))
theirNode.emit('connect', pathTo(newPeerId))
await used

/** Puts a step behind everything that another process could see, and one in the middle of what is written. */
function spyOnWriting(): void {
  for (const name of ['rename', 'link', 'rm'] as const) {
    const real = fs[name] as (...args: unknown[]) => Promise<unknown>
    Object.assign(fs, {
      [name]: async (...args: unknown[]) => {
        const result = await real(...args)
        step(name, args[0])
        return result
      },
    })
  }
  const { open } = fs
  fs.open = async (path, flags, mode) => {
    const file = await open(path, flags, mode)
    if (flags === 'wx' || flags === 'a') spyOnFile(file, path)
    return file
  }
  syncBuiltinESMExports()
}

function spyOnFile(file: FileHandle, path: unknown): void {
  const { sync } = file
  file.writeFile = async (content) => {
    const bytes = Buffer.from(content as Uint8Array)
    const half = bytes.length >> 1
    await file.write(bytes.subarray(0, half))
    step('half written', path)
    await file.write(bytes.subarray(half))
  }
  file.sync = async () => {
    await sync.call(file)
    step('synced', path)
  }
}
