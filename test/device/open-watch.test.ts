import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { loadLibc } from '../../src/device/libc.ts'
import { OpenWatch } from '../../src/device/open-watch.ts'
import { until } from '../support/until.ts'

const limits = { skip: process.platform === 'linux' ? false : 'inotify' }
const directory = mkdtempSync(join(tmpdir(), 'farport-opens-'))
after(() => rmSync(directory, { recursive: true }))

function files(count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const path = join(directory, String(i))
    writeFileSync(path, '')
    return path
  })
}

function open(path: string): void {
  closeSync(openSync(path, 'r'))
}

function inotifyInstances(): number {
  const ofUs = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return []
    }
  })
  return ofUs.filter((target) => target.includes('inotify')).length
}

test('tells who was opened, of more files than a user may have inotify instances', limits, async () => {
  const before = inotifyInstances()
  const opens = new OpenWatch(loadLibc())
  const told: number[] = []
  const watched = files(300).map((path, i) => opens.watch(path, () => told.push(i)))
  assert.equal(inotifyInstances(), before + 1)
  open(join(directory, '7'))
  open(join(directory, '299'))
  await until('it is told', () => told.length === 2)
  assert.deepEqual(told, [7, 299])
  for (const watch of watched) watch[Symbol.dispose]()
  await until('the instance is closed', () => inotifyInstances() === before)
})

test('an open of our own is forgotten, and a program’s at another file is not', limits, async () => {
  const opens = new OpenWatch(loadLibc())
  const [one = '', other = ''] = files(2)
  const told: string[] = []
  using watched = opens.watch(one, () => told.push('one'))
  using _ = opens.watch(other, () => told.push('other'))
  open(one)
  open(other)
  watched.forget()
  assert.deepEqual(told, ['other'])
  open(one)
  await until('it is told', () => told.length === 2)
  await immediate()
  assert.deepEqual(told, ['other', 'one'])
})

test('a file that is gone, or not watched any more, is not told of', limits, async () => {
  const opens = new OpenWatch(loadLibc())
  const [one = '', other = ''] = files(2)
  let told = 0
  const gone = opens.watch(one, () => told++)
  using _ = opens.watch(other, () => told++)
  rmSync(one)
  gone[Symbol.dispose]()
  gone[Symbol.dispose]()
  open(other)
  await until('it is told', () => told === 1)
  assert.throws(() => opens.watch(join(directory, 'nothing'), () => {}), { code: 'ENOENT' })
})
