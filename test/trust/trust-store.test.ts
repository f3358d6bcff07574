import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { createLog } from '../../src/log.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { openTrustStore, type TrustChange, type TrustStore } from '../../src/trust/trust-store.ts'
import type { TrustedPeer } from '../../src/trust/trusted-peers.ts'

const idOf = (n: number) => formatPeerId(new Uint8Array(32).fill(n))
const [ANNA, WALL, OTHER] = [idOf(1), idOf(2), idOf(3)]
const BOTH = `anna ${ANNA} ports=gps\nwall ${WALL} ports=* may=watch\n`
const silent = createLog('silent')
const root = process.getuid?.() === 0

async function homeWith(t: TestContext, text?: string): Promise<{ home: string; path: string }> {
  const home = await mkdtemp(join(tmpdir(), 'farport-trust-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const path = join(home, 'trusted_peers')
  if (text !== undefined) await writeFile(path, text, { mode: 0o600 })
  return { home, path }
}

async function storeOf(t: TestContext, home: string, clock?: () => number): Promise<TrustStore> {
  const store = await openTrustStore(home, { log: silent, ...(clock && { clock }) })
  t.after(() => store[Symbol.asyncDispose]())
  return store
}

/** The next change, which is to come within the second that we promise. */
async function nextChange(store: TrustStore, make: () => unknown): Promise<TrustChange> {
  const change = once(store, 'change', { signal: AbortSignal.timeout(1000) })
  await make()
  return (await change)[0]
}

/** What refreshing tells, if anything. */
async function told(store: TrustStore): Promise<TrustChange[]> {
  const changes: TrustChange[] = []
  const listener = (change: TrustChange) => void changes.push(change)
  store.on('change', listener)
  await store.refresh()
  store.off('change', listener)
  return changes
}

test('answers from the file', async (t) => {
  const { home } = await homeWith(t, `${BOTH}hub ${OTHER} may=relay\nbroken\n`)
  const store = await storeOf(t, home)
  assert.deepEqual([...store.rights(ANNA, 'gps')], ['watch', 'use', 'configure', 'lines'])
  assert.deepEqual([...store.rights(ANNA, 'plc')], [])
  assert.deepEqual([...store.rights(WALL, 'plc')], ['watch'])
  assert.deepEqual(
    [ANNA, OTHER, idOf(9)].map((id) => store.admits(id)),
    [true, true, false],
  )
  assert.deepEqual(
    [ANNA, OTHER, idOf(9)].map((id) => store.mayRelay(id)),
    [false, true, false],
  )
  assert.equal(store.byName('anna')?.peerId, ANNA)
  assert.equal(store.byId(WALL)?.name, 'wall')
  assert.deepEqual(
    store.peers().map(({ name }) => name),
    ['anna', 'wall', 'hub'],
  )
  assert.deepEqual(
    store.problems().map(({ line }) => line),
    [4],
  )
})

test('who is not in the file has nothing, also when there is no file or no home', async (t) => {
  const { home } = await homeWith(t)
  for (const place of [home, join(home, 'not-there')]) {
    const store = await storeOf(t, place)
    assert.deepEqual([store.admits(ANNA), store.mayRelay(ANNA), store.peers()], [false, false, []])
    assert.equal(store.rights(ANNA, 'gps').size, 0)
    assert.deepEqual(store.problems(), [])
  }
})

test('an edit is in force within a second, however the editor writes', async (t) => {
  const { home, path } = await homeWith(t)
  const store = await storeOf(t, home)
  const [anna, wall] = BOTH.split('\n')

  const made = await nextChange(store, () => writeFile(path, `${anna}\n`))
  assert.deepEqual(made, { added: [ANNA], removed: [], narrowed: [] })

  const inPlace = await nextChange(store, () => writeFile(path, `${wall}\n`))
  assert.deepEqual(inPlace, { added: [WALL], removed: [ANNA], narrowed: [] })

  const renamed = await nextChange(store, async () => {
    await writeFile(`${path}.new`, `${anna}\n`)
    await rename(`${path}.new`, path)
  })
  assert.deepEqual(renamed, { added: [ANNA], removed: [WALL], narrowed: [] })

  const gone = await nextChange(store, () => rm(path))
  assert.deepEqual(gone, { added: [], removed: [ANNA], narrowed: [] })
  assert.equal(store.admits(ANNA), false)
})

test('the watcher is what makes an edit quick', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  let quickestMs = Number.POSITIVE_INFINITY
  // After the first, each edit follows right upon a look at the file: the poll alone would take its full interval.
  await nextChange(store, () => writeFile(path, ''))
  for (const text of [BOTH, '', BOTH]) {
    const start = performance.now()
    await nextChange(store, () => writeFile(path, text))
    quickestMs = Math.min(quickestMs, performance.now() - start)
  }
  assert.ok(quickestMs < 500, `${quickestMs} ms`)
})

test('an edit in the very moment of opening is not missed', async (t) => {
  const { home, path } = await homeWith(t)
  writeFileSync(path, `anna ${ANNA}\n`)
  const store = await openTrustStore(home, { log: silent })
  t.after(() => store[Symbol.asyncDispose]())
  // As long as the other, and perhaps in the same tick of the file system's clock.
  await nextChange(store, () => writeFileSync(path, `wall ${WALL}\n`))
  assert.deepEqual([store.admits(ANNA), store.admits(WALL)], [false, true])
})

test('a file that an editor is just writing does not cut anybody', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  await store.refresh()
  const change = await nextChange(store, async () => {
    writeFileSync(path, '')
    // Long enough for an impatient store to read the empty file, far shorter than what we wait for.
    for (let i = 0; i < 20; i++) await readFile(path)
    writeFileSync(path, `${BOTH}other ${OTHER}\n`)
  })
  assert.deepEqual(change, { added: [OTHER], removed: [], narrowed: [] })
})

test('what the watcher does not see, the poll does', async (t) => {
  const elsewhere = await homeWith(t, `anna ${ANNA}\n`)
  const { home, path } = await homeWith(t)
  await symlink(elsewhere.path, path)
  const store = await storeOf(t, home)
  // The first may still be seen by the second look that follows opening; the others only by the poll.
  for (const [added, removed] of [
    [WALL, ANNA],
    [OTHER, WALL],
    [ANNA, OTHER],
  ] as const) {
    const change = await nextChange(store, () => writeFile(elsewhere.path, `peer ${added}\n`))
    assert.deepEqual(change, { added: [added], removed: [removed], narrowed: [] })
  }
})

test('tells who lost what, and nothing when nothing changed', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  for (const [text, changes] of [
    [`# a comment\n${BOTH}`, []],
    [BOTH.replace('ports=gps', 'ports=gps,plc'), [{ added: [], removed: [], narrowed: [] }]],
    [BOTH.replace('ports=gps', 'ports=plc'), [{ added: [], removed: [], narrowed: [ANNA] }]],
    [BOTH, [{ added: [], removed: [], narrowed: [ANNA] }]],
    [BOTH.replace('ports=gps', 'ports=gps may=watch'), [{ added: [], removed: [], narrowed: [ANNA] }]],
    [BOTH.replace('ports=gps', 'prots=gps'), [{ added: [], removed: [ANNA], narrowed: [] }]],
    ['', [{ added: [], removed: [WALL], narrowed: [] }]],
  ] as const) {
    await writeFile(path, text)
    assert.deepEqual(await told(store), changes, text)
  }
})

test('a grant ends at its expiry, and that is told too', async (t) => {
  const guests = [
    `${BOTH}guest ${OTHER} ports=* may=use,relay expires=2027-06-30`,
    `late ${idOf(4)} expires=2027-07-01\n`,
  ]
  const { home } = await homeWith(t, guests.join('\n'))
  let now = Date.parse('2027-06-30T23:59:59.999Z')
  const store = await storeOf(t, home, () => now)
  const standing = () => [store.admits(OTHER), store.rights(OTHER, 'gps').size, store.mayRelay(OTHER)]
  assert.deepEqual(standing(), [true, 2, true])
  const first = await nextChange(store, () => {
    now += 1
    assert.deepEqual(standing(), [false, 0, false], 'at once, before anyone was told')
  })
  assert.deepEqual(first, { added: [], removed: [OTHER], narrowed: [] })
  assert.equal(store.byName('guest')?.peerId, OTHER, 'the line is still there to be shown')
  const second = await nextChange(store, () => {
    now += 24 * 60 * 60 * 1000
  })
  assert.deepEqual(second, { added: [], removed: [idOf(4)], narrowed: [] })
})

test('a file or home that others could write is refused at the start', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  for (const [place, mode, right] of [
    [path, 0o620, 0o600],
    [path, 0o602, 0o600],
    [home, 0o720, 0o700],
    [home, 0o702, 0o700],
  ] as const) {
    await chmod(place, mode)
    await assert.rejects(openTrustStore(home, { log: silent }), {
      code: 'ERR_HOME',
      message: `${place} is writable by others, so it can't be trusted: type  chmod go-w ${place}`,
    })
    await chmod(place, right)
  }
  await chmod(path, 0o644)
  assert.equal((await storeOf(t, home)).admits(ANNA), true, 'it is no secret, others may read it')
})

test('a file of another user is refused', { skip: !root && 'only root can give files away' }, async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  await chown(path, 54321, 54321)
  await assert.rejects(openTrustStore(home, { log: silent }), { code: 'ERR_HOME', message: /sudo chown 0 / })
})

test('while running, a file that can not be trusted or read grants nothing to anybody', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const lines: { level: number; msg: string; problem?: string }[] = []
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) })
  await using store = await openTrustStore(home, { log })
  for (const [spoil, mend] of [
    [() => chmod(path, 0o666), () => chmod(path, 0o600)],
    [() => chmod(home, 0o777), () => chmod(home, 0o700)],
    [
      async () => {
        await rename(path, `${path}.old`)
        await mkdir(path)
      },
      async () => {
        await rm(path, { recursive: true })
        await rename(`${path}.old`, path)
      },
    ],
  ] as const) {
    lines.length = 0
    const cut = await nextChange(store, spoil)
    assert.deepEqual(cut.removed.toSorted(), [ANNA, WALL].toSorted())
    assert.deepEqual([store.admits(ANNA), store.rights(ANNA, 'gps').size, store.peers()], [false, 0, []])
    assert.deepEqual(
      store.problems().map(({ line }) => line),
      [0],
    )
    const errors = lines.filter(({ level }) => level >= 50)
    assert.deepEqual(
      errors.map(({ problem }) => problem),
      [store.problems()[0]?.sentence],
    )
    const back = await nextChange(store, mend)
    assert.deepEqual(back.added.toSorted(), [ANNA, WALL].toSorted())
    assert.deepEqual(store.problems(), [])
  }
})

test('refused lines are logged, once', async (t) => {
  const { home, path } = await homeWith(t, `${BOTH}broken\n`)
  const lines: { line?: number; sentence?: string; level: number }[] = []
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) })
  await using store = await openTrustStore(home, { log })
  await store.refresh()
  const warnings = () => lines.filter(({ level }) => level === 40).map(({ line }) => line)
  assert.deepEqual(warnings(), [3])
  await writeFile(path, `${BOTH}broken\nbroken\n`)
  await store.refresh()
  assert.deepEqual(warnings(), [3, 3, 4])
})

test('closing ends it: no more changes, and closing twice is fine', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const store = await openTrustStore(home, { log: silent })
  store.on('change', () => assert.fail('told after closing'))
  const closing = store[Symbol.asyncDispose]()
  await writeFile(path, '')
  await closing
  await store.refresh()
  await store[Symbol.asyncDispose]()
})

test('an open store does not keep the process alive', async (t) => {
  const { home } = await homeWith(t, BOTH)
  const module = (path: string) =>
    JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../src', path)).href)
  const script = `import { openTrustStore } from ${module('trust/trust-store.ts')}
    import { createLog } from ${module('log.ts')}
    const store = await openTrustStore(${JSON.stringify(home)}, { log: createLog('silent') })
    console.log(store.peers().length)`
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  assert.deepEqual([ran.stdout, ran.status], ['2\n', 0], ran.stderr)
})

const other: TrustedPeer = { name: 'other', peerId: OTHER, ports: ['gps'], may: ['use'], addrs: [] }

test('add writes one line, in force at once, and leaves the rest byte by byte', async (t) => {
  // The last line unended, the comment in Latin-1, as files are.
  const old = Buffer.concat([Buffer.from([0x23, 0xe9, 0x0a]), Buffer.from(`\t\r\nanna  ${ANNA}   # mine`)])
  const { home, path } = await homeWith(t)
  await writeFile(path, old, { mode: 0o640 })
  const store = await storeOf(t, home)
  await store.add(other)
  assert.deepEqual([...store.rights(OTHER, 'gps')], ['watch', 'use'])
  const line = Buffer.from(`\nother ${OTHER} ports=gps may=use\n`)
  assert.deepEqual(await readFile(path), Buffer.concat([old, line]))
  assert.equal((await stat(path)).mode & 0o777, 0o640)
  assert.deepEqual(await readdir(home), ['trusted_peers'], 'nothing is left lying about')
})

test('add makes the file where there is none, private', async (t) => {
  const { home, path } = await homeWith(t)
  const store = await storeOf(t, home)
  await store.add(other)
  assert.equal(await readFile(path, 'utf8'), `other ${OTHER} ports=gps may=use\n`)
  assert.equal((await stat(path)).mode & 0o777, 0o600)
})

test('many added at once are all there', async (t) => {
  const { home } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  const peers = Array.from({ length: 10 }, (_, i) => ({ ...other, name: `p${i}`, peerId: idOf(10 + i) }))
  await Promise.all(peers.map((peer) => store.add(peer)))
  assert.equal(store.peers().length, 12)
})

test('add refuses what would not be this one grant, and writes nothing', async (t) => {
  const { home, path } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  for (const change of [
    { name: 'anna' },
    { peerId: ANNA },
    { name: '' },
    { name: 'a b' },
    { name: `x\nmallory` },
    { name: `x ${idOf(7)} ports=*\nother` },
    { name: '#other' },
    { peerId: `${OTHER} may=steal` },
    { ports: ['gps may=steal'] },
    { ports: ['gps,*'] },
    { ports: [''] },
    { addrs: ['/ip4/10.0.0.1/tcp/1 may=steal'] },
    { may: [] },
    { expires: -1 },
  ])
    await assert.rejects(store.add({ ...other, ...change }), { code: 'ERR_USAGE' }, JSON.stringify(change))
  assert.equal(await readFile(path, 'utf8'), BOTH)
  await store.add(other)
})

test('add does not grow the file beyond what is read', async (t) => {
  const { home, path } = await homeWith(t, `${BOTH}broken\n${'#'.repeat(1024 * 1024 - BOTH.length - 20)}\n`)
  const store = await storeOf(t, home)
  await assert.rejects(store.add(other), { code: 'ERR_USAGE', message: /characters/ })
  await writeFile(path, `${BOTH}broken\n${'\n'.repeat(9997)}`)
  await assert.rejects(store.add(other), { code: 'ERR_USAGE', message: /lines/ })
})

test('add follows a link, and keeps the owner', async (t) => {
  const elsewhere = await homeWith(t, BOTH)
  const { home, path } = await homeWith(t)
  await symlink(elsewhere.path, path)
  const before = await stat(path)
  const store = await storeOf(t, home)
  await store.add(other)
  assert.ok((await lstat(path)).isSymbolicLink())
  assert.match(await readFile(elsewhere.path, 'utf8'), /^other /m)
  assert.deepEqual([(await stat(path)).uid, (await stat(path)).gid], [before.uid, before.gid])
})
