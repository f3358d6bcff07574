import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type DeviceLock, lockDevice } from '../../src/device/device-lock.ts'

async function lockFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'farport-lock-'))
  return {
    folder,
    path: (name: string) => join(folder, name),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

async function locked(path: string, folder: string): Promise<DeviceLock> {
  const taken = await lockDevice(path, folder)
  assert.equal(taken.state, 'locked')
  return (taken as { lock: DeviceLock }).lock
}

/** The number of a process that is no more. */
async function deadPid(): Promise<number> {
  const child = spawn('true')
  await once(child, 'exit')
  return child.pid as number
}

const column = (pid: number) => `${String(pid).padStart(10)}\n`

test('the lock is a file as other programs expect it, and is gone afterwards', async () => {
  await using locks = await lockFolder()
  // As a service has it.
  const before = process.umask(0o077)
  const lock = await locked('/dev/ttyJ0', locks.folder).finally(() => process.umask(before))
  assert.deepEqual(await readdir(locks.folder), ['LCK..ttyJ0'])
  assert.equal(await readFile(locks.path('LCK..ttyJ0'), 'latin1'), column(process.pid))
  assert.equal((await stat(locks.path('LCK..ttyJ0'))).mode & 0o777, 0o644)
  await lock.release()
  assert.deepEqual(await readdir(locks.folder), [])
})

test('a link is locked under the name of its device, and a lock on either name holds', async () => {
  await using locks = await lockFolder()
  const byId = locks.path('by-id-gps')
  await symlink('/dev/null', byId)
  const lock = await locked(byId, locks.folder)
  assert.deepEqual((await readdir(locks.folder)).sort(), ['LCK..null', 'by-id-gps'])
  await lock.release()
  for (const name of ['LCK..null', `LCK..${byId.replaceAll('/', '_')}`]) {
    await writeFile(locks.path(name), column(process.ppid))
    assert.deepEqual(await lockDevice(byId, locks.folder), {
      state: 'held',
      pid: process.ppid,
      file: locks.path(name),
    })
    await rm(locks.path(name))
  }
})

test('a lock of another program stays, however it writes its number', async () => {
  await using locks = await lockFolder()
  const file = locks.path('LCK..ttyJ0')
  for (const [text, pid] of [
    [column(process.ppid), process.ppid],
    [`${process.ppid}`, process.ppid],
    [`${column(process.ppid).trimEnd()} minicom root\n`, process.ppid],
    ['', undefined],
    ['nonsense', undefined],
    ['         0\n', undefined],
  ] as const) {
    await writeFile(file, text)
    assert.deepEqual(await lockDevice('/dev/ttyJ0', locks.folder), { state: 'held', pid, file }, text)
    assert.equal(await readFile(file, 'latin1'), text)
    assert.deepEqual(await readdir(locks.folder), ['LCK..ttyJ0'])
  }
})

test('what is no plain file is not followed and not waited for', async () => {
  await using locks = await lockFolder()
  const file = locks.path('LCK..ttyJ0')
  await symlink('/proc/self/stat', file)
  assert.equal((await lockDevice('/dev/ttyJ0', locks.folder)).state, 'held')
  await rm(file)
  const [code] = await once(spawn('mkfifo', [file]), 'exit')
  assert.equal(code, 0)
  assert.equal((await lockDevice('/dev/ttyJ0', locks.folder)).state, 'held')
  await rm(file)
  await mkdir(file)
  assert.equal((await lockDevice('/dev/ttyJ0', locks.folder)).state, 'held')
})

test('the lock of a process that is no more is replaced, by one of two who try', async () => {
  await using locks = await lockFolder()
  await writeFile(locks.path('LCK..ttyJ0'), column(await deadPid()))
  const [a, b] = await Promise.all([locked('/dev/ttyJ0', locks.folder), locked('/dev/ttyJ0', locks.folder)])
  assert.deepEqual(await readdir(locks.folder), ['LCK..ttyJ0'])
  assert.equal(await readFile(locks.path('LCK..ttyJ0'), 'latin1'), column(process.pid))
  await a.release()
  await b.release()
  assert.deepEqual(await readdir(locks.folder), [])
})

test('who finds a lock of this very process and then can not open the device leaves it', async () => {
  await using locks = await lockFolder()
  const first = await locked('/dev/ttyJ0', locks.folder)
  const second = await locked('/dev/ttyJ0', locks.folder)
  await second.undo()
  assert.deepEqual(await readdir(locks.folder), ['LCK..ttyJ0'])
  await first.undo()
  assert.deepEqual(await readdir(locks.folder), [])
})

test('a lock that another has taken meanwhile is not removed', async () => {
  await using locks = await lockFolder()
  const lock = await locked('/dev/ttyJ0', locks.folder)
  await writeFile(locks.path('LCK..ttyJ0'), column(process.ppid))
  await lock.release()
  assert.equal(await readFile(locks.path('LCK..ttyJ0'), 'latin1'), column(process.ppid))
})

test('without a folder to lock in, it goes without', async () => {
  await using locks = await lockFolder()
  assert.equal((await lockDevice('/dev/ttyJ0', locks.path('none'))).state, 'unavailable')
})

const skip = process.getuid?.() === 0 ? 'root may write everywhere' : false

test('nor where it may not write', { skip }, async () => {
  await using locks = await lockFolder()
  await chmod(locks.folder, 0o555)
  assert.equal((await lockDevice('/dev/ttyJ0', locks.folder)).state, 'unavailable')
})
