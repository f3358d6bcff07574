/**
 * One side of a pairing, or a `revoke`, in a process of its own, killed on the way: `commit-child.ts WHAT HOME STEP`
 * prints the steps it takes from the moment it begins to write, and dies by SIGKILL at the step of that number. A side of a
 * pairing speaks to the other one on descriptor 3.
 */
import { writeSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { Socket } from 'node:net'
import { createLog } from '../../src/log.ts'
import { Invites } from '../../src/trust/invites.ts'
import { joinInvite, recordPeer, serveInvite } from '../../src/trust/pair-stream.ts'
import { openTrustStore } from '../../src/trust/trust-store.ts'
import { ANNA, ANNA_TERMS, INVITE_ID, SECRET, WORKSHOP, WORKSHOP_TERMS } from './pairing-ends.ts'

const [what, home = '', fatal] = process.argv.slice(2)
let steps = 0

function step(name: string): void {
  writeSync(1, `${name}\n`)
  if (++steps === Number(fatal)) process.kill(process.pid, 'SIGKILL')
}

await using store = await openTrustStore(home, { log: createLog('silent') })
const signal = new AbortController().signal
switch (what) {
  case 'inviter': {
    const invites = new Invites({ self: WORKSHOP, record: recordPeer(store) })
    invites.open({ id: INVITE_ID, secret: SECRET, terms: WORKSHOP_TERMS })
    invites.on('ended', () => {
      spyOnWriting()
      step('spent')
    })
    invites.on('paired', () => step('recorded'))
    await serveInvite(socket(), { self: WORKSHOP, joiner: ANNA, invites, signal })
    step('told')
    break
  }
  case 'joiner': {
    const invite = { inviter: WORKSHOP, inviteId: INVITE_ID, secret: SECRET }
    const joined = await joinInvite(socket(), { self: ANNA, ...invite, terms: ANNA_TERMS, signal })
    spyOnWriting()
    step('joined')
    await recordPeer(store)(joined.peer)
    step('recorded')
    break
  }
  case 'revoke':
    spyOnWriting()
    step('begun')
    await store.revoke(['anna'])
    step('revoked')
    break
}

function socket(): Socket {
  return new Socket({ fd: 3, readable: true, writable: true, allowHalfOpen: true })
}

/** Puts a step before everything that touches the disk, and one in the middle of what is written. */
function spyOnWriting(): void {
  const { open, rename, chmod, chown, link, rm } = fs
  fs.rename = async (from, to) => {
    step('rename')
    await rename(from, to)
    step('renamed')
  }
  fs.chmod = async (...args) => {
    step('chmod')
    await chmod(...args)
  }
  fs.chown = async (...args) => {
    step('chown')
    await chown(...args)
  }
  fs.link = async (from, to) => {
    step('link')
    await link(from, to)
    step('linked')
  }
  fs.rm = async (...args) => {
    step('rm')
    await rm(...args)
  }
  fs.open = async (path, flags, mode) => {
    const file = await open(path, flags, mode)
    if (flags === 'wx' || flags === 'a') spyOnFile(file)
    return file
  }
  syncBuiltinESMExports()
}

function spyOnFile(file: FileHandle): void {
  const { sync, close } = file
  step('created')
  file.writeFile = async (content) => {
    const bytes = Buffer.from(content as Uint8Array)
    const half = bytes.length >> 1
    await file.write(bytes.subarray(0, half))
    step('half written')
    await file.write(bytes.subarray(half))
    step('written')
  }
  file.sync = async () => {
    await sync.call(file)
    step('synced')
  }
  file.close = async () => {
    await close.call(file)
    step('closed')
  }
}
