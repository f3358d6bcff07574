import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs, { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { createLog } from '../../src/log.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { parseRevokedPeers } from '../../src/trust/revoked-peers.ts'
import { openTrustStore, type TrustStore } from '../../src/trust/trust-store.ts'
import type { TrustedPeer } from '../../src/trust/trusted-peers.ts'

const idOf = (n: number) => formatPeerId(new Uint8Array(32).fill(n))
const [ANNA, WALL, OTHER] = [idOf(1), idOf(2), idOf(3)]
const BOTH = `# mine\nanna ${ANNA} ports=gps # laptop\r\nwall ${WALL} ports=* may=watch\n`
const NOW = Date.UTC(2029, 0, 2, 3, 4, 5)
const LINE = `${ANNA}  # anna, revoked 2029-01-02T03:04:05Z`

interface Home {
  home: string
  trusted: string
  revoked: string
}

async function homeWith(t: TestContext, trusted: string, revoked?: string): Promise<Home> {
  const home = await mkdtemp(join(tmpdir(), 'farport-revoke-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const paths = { home, trusted: join(home, 'trusted_peers'), revoked: join(home, 'revoked_peers') }
  await writeFile(paths.trusted, trusted, { mode: 0o600 })
  if (revoked !== undefined) await writeFile(paths.revoked, revoked, { mode: 0o600 })
  return paths
}

async function storeOf(t: TestContext, home: string): Promise<TrustStore> {
  const store = await openTrustStore(home, { log: createLog('silent'), clock: () => NOW })
  t.after(() => store[Symbol.asyncDispose]())
  return store
}

const names = (store: TrustStore) => store.peers().map(({ name }) => name)

const texts: { name: string; text: string; revoked: string[]; problems?: RegExp[] }[] = [
  { name: 'nothing', text: '', revoked: [] },
  { name: 'our own line', text: `${LINE}\n`, revoked: [ANNA] },
  { name: 'a bare PeerID', text: ANNA, revoked: [ANNA] },
  {
    name: 'a comment of its own',
    text: `# stolen in May\n\n ${ANNA}\t# the old laptop\r\n`,
    revoked: [ANNA],
  },
  { name: 'line ends of old Macs', text: `${ANNA}\r${WALL}\r`, revoked: [ANNA, WALL] },
  { name: 'a byte order mark', text: `\uFEFF${ANNA}\n`, revoked: [ANNA] },
  {
    name: 'UTF-16',
    text: Buffer.from(`\uFEFF${LINE}\r\n`, 'utf16le').toString('utf8'),
    revoked: [ANNA],
    problems: [/line 1 .*all the same/],
  },
  {
    name: 'name and PeerID the other way round',
    text: `anna ${ANNA}\n`,
    revoked: [ANNA],
    problems: [/line 1 .*all the same/],
  },
  { name: 'commented out', text: `# ${ANNA}\n`, revoked: [ANNA], problems: [/line 1 .*all the same/] },
  {
    name: 'glued to other words',
    text: `/p2p/x${ANNA}y\n`,
    revoked: [ANNA],
    problems: [/line 1 .*all the same/],
  },
  {
    name: 'two on one line',
    text: `${ANNA} # see ${WALL}\n`,
    revoked: [ANNA, WALL],
    problems: [/line 1 .*several/],
  },
  {
    name: 'cut short',
    text: `${LINE}\n${WALL.slice(0, -1)}\n`,
    revoked: [ANNA],
    problems: [/line 2 .*no PeerID/],
  },
]
for (const { name, text, revoked, problems = [] } of texts)
  test(`reads ${name}`, () => {
    const parsed = parseRevokedPeers(text)
    assert.deepEqual([...parsed.revoked.keys()], revoked)
    assert.equal(parsed.problems.length, problems.length)
    for (const [i, problem] of problems.entries()) assert.match(parsed.problems[i]?.sentence ?? '', problem)
  })

test('many broken lines are told briefly, and what comes after them revokes', () => {
  const { revoked, problems } = parseRevokedPeers(`${'broken\n'.repeat(1000)}${ANNA}\n`)
  assert.equal(problems.length, 20)
  assert.ok(revoked.has(ANNA))
})

test('whatever stands around it, a PeerID is revoked, and no terminal is told to do anything', () => {
  const hostile = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(LINE, WALL, '12D3KooW', '\x1b[2J', '#', '\0', '\n', '\r', '\uFEFF', ' '),
  )
  const text = fc.array(hostile).map((parts) => parts.join(''))
  fc.assert(
    fc.property(text, text, (before, after) => {
      const { revoked, problems } = parseRevokedPeers(before + ANNA + after)
      assert.ok(revoked.has(ANNA))
      for (const { name = '', revokedAt = '' } of revoked.values())
        assert.match(name + revokedAt, /^[\w.:-]*$/)
      for (const { sentence } of problems) assert.match(sentence, /^[\x20-\x7e]*$/)
      // More text never revokes fewer.
      for (const peerId of parseRevokedPeers(before).revoked.keys()) assert.ok(revoked.has(peerId))
    }),
  )
})

test('revoke deletes the line, and nothing else, and remembers', async (t) => {
  const { home, trusted, revoked } = await homeWith(t, BOTH)
  await chmod(trusted, 0o640)
  const store = await storeOf(t, home)
  const change = once(store, 'change')
  const answer = await store.revoke(['anna'])
  assert.deepEqual(answer, [
    { peerId: ANNA, name: 'anna', revokedAt: '2029-01-02T03:04:05Z', lineStays: false },
  ])
  assert.deepEqual(await change, [{ added: [], removed: [ANNA], narrowed: [] }])
  assert.equal(await readFile(trusted, 'utf8'), `# mine\nwall ${WALL} ports=* may=watch\n`)
  assert.equal((await stat(trusted)).mode & 0o777, 0o640)
  assert.match(await readFile(revoked, 'utf8'), new RegExp(`^# .*\n${LINE}\n$`))
  assert.equal((await stat(revoked)).mode & 0o777, 0o600)
  assert.deepEqual(store.problems(), [])
})

test('a restored backup lets nobody in again', async (t) => {
  const { home, trusted } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  await store.revoke(['anna'])
  await writeFile(trusted, BOTH)
  await store.refresh()
  assert.deepEqual(
    [store.admits(ANNA), store.rights(ANNA, 'gps').size, store.byName('anna'), names(store)],
    [false, 0, undefined, ['wall']],
  )
  assert.deepEqual(store.problems(), [
    {
      line: 2,
      sentence: 'anna was revoked on 2029-01-02: delete its line in revoked_peers to let it in again',
    },
  ])
})

test('pairing again with a revoked peer is refused, until its line is deleted', async (t) => {
  const { home, trusted, revoked } = await homeWith(t, '')
  const store = await storeOf(t, home)
  await writeFile(revoked, `${LINE}\n`, { mode: 0o600 })
  // The store need not have noticed: what counts is the file.
  const peer: TrustedPeer = { name: 'new', peerId: ANNA, ports: ['gps'], may: ['use'], addrs: [] }
  for (const write of [() => store.add(peer), () => store.record(peer)])
    await assert.rejects(write, { code: 'ERR_NOT_TRUSTED', message: /^anna was revoked on 2029-01-02: / })
  assert.equal(await readFile(trusted, 'utf8'), '')
  await writeFile(revoked, '')
  await store.record(peer)
  assert.ok(store.admits(ANNA))
})

test('an edit of revoked_peers is in force within a second', async (t) => {
  const { home, revoked } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  for (const [text, added, removed] of [
    [`${LINE}\n`, [], [ANNA]],
    [`${WALL}\n`, [ANNA], [WALL]],
    ['', [WALL], []],
  ] as const) {
    const change = once(store, 'change', { signal: AbortSignal.timeout(1000) })
    await writeFile(revoked, text, { mode: 0o600 })
    assert.deepEqual(await change, [{ added, removed, narrowed: [] }])
  }
})

test('a revoked_peers that can not be trusted or read lets nobody in', async (t) => {
  const { home, revoked } = await homeWith(t, BOTH, '')
  const store = await storeOf(t, home)
  await chmod(revoked, 0o622)
  await store.refresh()
  assert.equal(store.admits(WALL), false)
  await assert.rejects(openTrustStore(home, { log: createLog('silent') }), {
    code: 'ERR_HOME',
    message: /revoked_peers is writable by others/,
  })
  await rm(revoked)
  await mkdir(revoked)
  await store.refresh()
  assert.equal(store.admits(WALL), false)
  await rm(revoked, { recursive: true })
  await writeFile(revoked, '\n'.repeat(1024 * 1024 + 1), { mode: 0o600 })
  await store.refresh()
  assert.equal(store.admits(WALL), false)
  await rm(revoked)
  await store.refresh()
  assert.equal(store.admits(WALL), true)
})

test('stopped between the two files, the peer is cut off, and to revoke again finishes it', async (t) => {
  const { home, trusted } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  // trusted_peers is replaced by a rename, revoked_peers is not.
  const failing = t.mock.method(fs, 'rename', () =>
    Promise.reject(Object.assign(new Error(), { code: 'EIO' })),
  )
  syncBuiltinESMExports()
  try {
    await assert.rejects(store.revoke(['anna']), { code: 'ERR_HOME', message: /trusted_peers .*EIO/ })
  } finally {
    failing.mock.restore()
    syncBuiltinESMExports()
  }
  assert.equal(await readFile(trusted, 'utf8'), BOTH)
  assert.deepEqual([store.admits(ANNA), names(store)], [false, ['wall']])
  assert.equal((await storeOf(t, home)).admits(ANNA), false, 'for another process too')
  await store.revoke(['anna'])
  assert.doesNotMatch(await readFile(trusted, 'utf8'), /anna/)
})

test('a revocation is appended, whatever the file ends with', async (t) => {
  const { home, revoked } = await homeWith(t, BOTH, `# my own\n${OTHER} # torn`)
  const store = await storeOf(t, home)
  await store.revoke(['anna', WALL])
  const text = await readFile(revoked, 'utf8')
  assert.equal(
    text,
    `# my own\n${OTHER} # torn\n${LINE}\n${LINE.replace(ANNA, WALL).replace('anna', 'wall')}\n`,
  )
  assert.deepEqual(
    store.revoked().map(({ peerId }) => peerId),
    [OTHER, ANNA, WALL],
  )
  await store.revoke([ANNA])
  assert.equal(await readFile(revoked, 'utf8'), text, 'once is enough')
})

test('a PeerID without a line can be revoked too', async (t) => {
  const { home, trusted } = await homeWith(t, BOTH)
  const store = await storeOf(t, home)
  await store.revoke([OTHER])
  assert.equal(await readFile(trusted, 'utf8'), BOTH)
  await writeFile(trusted, `${BOTH}other ${OTHER} ports=*\n`)
  await store.refresh()
  assert.equal(store.admits(OTHER), false)
})

test('one unknown name, and nobody is revoked', async (t) => {
  const { home, trusted, revoked } = await homeWith(t, `${BOTH}typo 12D3KooWx\n`)
  const store = await storeOf(t, home)
  await assert.rejects(store.revoke(['anna', 'nobody']), {
    code: 'ERR_NOT_TRUSTED',
    message: /called nobody/,
  })
  await assert.rejects(store.revoke(['anna', 'typo']), { code: 'ERR_USAGE', message: /line 4 / })
  assert.deepEqual(names(store), ['anna', 'wall'])
  assert.match(await readFile(trusted, 'utf8'), /^anna /m)
  await assert.rejects(readFile(revoked), { code: 'ENOENT' })
})

test('taking trust back never brings another line into force', async (t) => {
  const text = `anna ${ANNA} ports=gps\nanna ${OTHER} ports=*\n`
  const { home, trusted } = await homeWith(t, text)
  const store = await storeOf(t, home)
  assert.deepEqual(
    (await store.revoke(['anna'])).map(({ peerId, lineStays }) => [peerId, lineStays]),
    [[ANNA, true]],
  )
  assert.equal(await readFile(trusted, 'utf8'), text)
  assert.deepEqual([store.admits(ANNA), store.admits(OTHER)], [false, false])
  await store.revoke([OTHER])
  assert.deepEqual([store.admits(ANNA), store.admits(OTHER), names(store)], [false, false, []])
})

test('two of one name, revoked together, leave no line', async (t) => {
  const { home, trusted } = await homeWith(t, `anna ${ANNA} ports=gps\nanna ${OTHER} ports=*\n`)
  const store = await storeOf(t, home)
  const answer = await store.revoke([ANNA, OTHER])
  assert.deepEqual(
    answer.map(({ lineStays }) => lineStays),
    [false, false],
  )
  assert.equal(await readFile(trusted, 'utf8'), '')
})

test('a PeerID is never taken for the name of a refused line', async (t) => {
  const { home } = await homeWith(t, `${ANNA} ${WALL}\nanna ${ANNA} ports=gps\n`)
  const store = await storeOf(t, home)
  assert.deepEqual(
    (await store.revoke([ANNA])).map(({ peerId }) => peerId),
    [ANNA],
  )
})
