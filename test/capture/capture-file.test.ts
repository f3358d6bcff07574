import assert from 'node:assert/strict'
import { createReadStream, existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mock, type TestContext, test } from 'node:test'
import { CaptureFile, type CaptureOptions } from '../../src/capture/capture-file.ts'
import { Captures } from '../../src/capture/captures.ts'
import { readCapture } from '../../src/capture/formats.ts'
import { createLog } from '../../src/log.ts'
import { until } from '../support/until.ts'

const log = createLog('silent')

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'farport-capture-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  return dir
}

const options = (path: string, more: Partial<CaptureOptions> = {}): CaptureOptions => ({
  ...{ path, format: 'hex', rotateBytes: 1_000_000, keep: 3 },
  ...more,
})

async function bytesIn(path: string): Promise<string> {
  const parts: Uint8Array[] = []
  for await (const { bytes } of readCapture(createReadStream(path))) parts.push(bytes)
  return Buffer.concat(parts).toString('latin1')
}

test('writes what passes, for its owner alone', async (t) => {
  const path = join(await folder(t), 'deep', 'gps.hex')
  {
    await using capture = new CaptureFile('gps', options(path), log)
    const reused = Buffer.from('hello')
    capture.record('fromDevice', reused)
    reused.fill(0)
    capture.record('toDevice', Buffer.from('world'))
    assert.deepEqual(capture.status, { file: path, state: 'capturing', lost: 0 })
  }
  assert.equal(await bytesIn(path), 'helloworld')
  assert.equal((await stat(path)).mode & 0o777, 0o600)
})

test('a full file makes room, and so does each start; only so many are kept', async (t) => {
  const dir = await folder(t)
  const path = join(dir, 'c')
  for (let start = 0; start < 3; start++) {
    await using capture = new CaptureFile('p', options(path, { rotateBytes: 4096, keep: 2 }), log)
    for (let i = 0; i < 3; i++) {
      // 1024 bytes are more than 4 KiB in hex.
      capture.record('fromDevice', Buffer.alloc(1024, 0x61 + 3 * start + i))
      const line = `|${String.fromCharCode(0x61 + 3 * start + i).repeat(16)}|\n`
      await until('it is written', () => existsSync(path) && count(readFileSync(path, 'utf8'), line) === 64)
    }
  }
  assert.deepEqual((await readdir(dir)).sort(), ['c', 'c.1', 'c.2'])
  for (const [name, letter] of [
    ['c.2', 'g'],
    ['c.1', 'h'],
    ['c', 'i'],
  ] as const)
    assert.equal(await bytesIn(join(dir, name)), letter.repeat(1024))
})

test('a path that is a directory or a device is left alone', async (t) => {
  const dir = await folder(t)
  const path = join(dir, 'log')
  await mkdir(path)
  await using capture = new CaptureFile('p', options(path), log)
  await stopped(capture)
  assert.match(String(capture.status.reason), /log is there and is no file/)
  assert.deepEqual(await readdir(dir), ['log'])
})

test('never writes through a link that somebody put there', async (t) => {
  const dir = await folder(t)
  const victim = join(dir, 'victim')
  await writeFile(victim, 'precious')
  await symlink(victim, join(dir, 'c'))
  {
    await using capture = new CaptureFile('p', options(join(dir, 'c')), log)
    capture.record('fromDevice', Buffer.from('x'))
  }
  assert.equal(await readFile(victim, 'utf8'), 'precious')
  assert.equal(await bytesIn(join(dir, 'c')), 'x')
})

test('where it can’t write, it says why, counts what is lost, and goes on when it can', async (t) => {
  const dir = await folder(t)
  const path = join(dir, 'file', 'c')
  // A file where a directory has to be: that stops root, too.
  await writeFile(join(dir, 'file'), '')
  mock.timers.enable({ apis: ['setTimeout'] })
  t.after(() => mock.timers.reset())
  await using capture = new CaptureFile('p', options(path), log)
  capture.record('fromDevice', Buffer.from('lost'))
  await stopped(capture)
  assert.match(String(capture.status.reason), /EEXIST|ENOTDIR/)
  capture.record('fromDevice', Buffer.from('too'))
  assert.equal(capture.status.lost, 7)
  await rm(join(dir, 'file'))
  mock.timers.tick(10_000)
  await turns(() => capture.status.state === 'capturing')
  capture.record('fromDevice', Buffer.from('there'))
  await capture[Symbol.asyncDispose]()
  assert.equal(await bytesIn(path), 'there')
  assert.match(await readFile(path, 'utf8'), /^# farport capture of p\n# \S+ lost 7 bytes\n/)
})

test('what comes faster than it can be written is counted, not kept', async (t) => {
  const path = join(await folder(t), 'c')
  {
    await using capture = new CaptureFile('p', options(path), log)
    // All in one turn, in which nothing can be written.
    for (let i = 0; i < 300; i++) capture.record('fromDevice', Buffer.alloc(8192, 0x61))
    assert.ok(capture.status.lost > 1_000_000, `${capture.status.lost} lost`)
    assert.ok(capture.status.lost < 300 * 8192 - 1_000_000, `${capture.status.lost} lost`)
  }
  const text = await readFile(path, 'utf8')
  const [, lost] = /lost (\d+) bytes/.exec(text) ?? []
  assert.equal(Number(lost) + (await bytesIn(path)).length, 300 * 8192)
})

test('small pieces count for what they cost', async (t) => {
  const path = join(await folder(t), 'c')
  await using capture = new CaptureFile('p', options(path), log)
  for (let i = 0; i < 20_000; i++) capture.record('fromDevice', Buffer.from('x'))
  assert.ok(capture.status.lost > 10_000, `${capture.status.lost} lost`)
})

test('ports that are told the same go on in the same file; others begin or end', async (t) => {
  const dir = await folder(t)
  const [a, b] = ['a', 'b'].map((name) => options(join(dir, name))) as [CaptureOptions, CaptureOptions]
  await using captures = new Captures(log)
  await captures.become(new Map([['a', a]]))
  captures.record('a', 'fromDevice', Buffer.from('1'))
  captures.record('b', 'fromDevice', Buffer.from('not captured'))
  await captures.become(
    new Map([
      ['a', { ...a }],
      ['b', b],
    ]),
  )
  captures.record('a', 'fromDevice', Buffer.from('2'))
  captures.record('b', 'fromDevice', Buffer.from('3'))
  assert.deepEqual(captures.status('c'), {})
  await captures.become(new Map([['b', b]]))
  captures.record('a', 'fromDevice', Buffer.from('not any more'))
  await captures.become(new Map())
  assert.deepEqual((await readdir(dir)).sort(), ['a', 'b'])
  assert.equal(await bytesIn(join(dir, 'a')), '12')
  assert.equal(await bytesIn(join(dir, 'b')), '3')
})

function count(text: string, part: string): number {
  return text.split(part).length - 1
}

async function stopped(capture: CaptureFile): Promise<void> {
  await turns(() => capture.status.state === 'stopped')
}

/** Timers are mocked, so that one looks again in each turn. */
async function turns(holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 10_000 && !holds(); turn++) await new Promise((resolve) => setImmediate(resolve))
  assert.ok(holds())
}
