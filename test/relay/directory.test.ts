import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { askDirectory, Directory } from '../../src/relay/directory.ts'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { peer } from './peers.ts'

const soon = () => AbortSignal.timeout(5_000)
const HERE = '192.0.2.1'

function ask(directory: Directory, nameplate: string, source = HERE): Promise<string[]> {
  const [asker, relay] = duplexPair()
  void directory.serve(relay, source)
  return askDirectory(asker, nameplate, soon())
}

test('tells who has an open invite under a nameplate, and of no other', async () => {
  const directory = new Directory((nameplate) => (nameplate === '734' ? [peer(1), peer(2)] : []))
  assert.deepEqual(await ask(directory, '734'), [peer(1), peer(2)])
  assert.deepEqual(await ask(directory, '735'), [])
})

test('tells of eight at most', async () => {
  const crowd = Array.from({ length: 20 }, (_, i) => peer(i))
  assert.equal((await ask(new Directory(() => crowd), '734')).length, 8)
})

test('all nameplates can not be swept from one place, nor from many', async () => {
  const time = { now: 0 }
  const directory = new Directory(
    () => [],
    () => time.now,
  )
  const answered = async (source: (n: number) => string) => {
    let count = 0
    for (let n = 100; n < 1_000; n += 4)
      await ask(directory, String(n), source(n)).then(
        () => count++,
        () => {},
      )
    return count
  }
  assert.equal(await answered(() => HERE), 12)
  await assert.rejects(ask(directory, '734'), { code: 'ERR_UNFIT' })
  assert.equal(await answered((n) => `198.51.100.${n}`), 108)
  time.now = 60_000
  assert.deepEqual(await ask(directory, '734'), [])
})

test('hostile bytes get a refusal or nothing', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), async (bytes) => {
      const [asker, relay] = duplexPair()
      asker.on('error', () => {})
      const served = new Directory(() => [peer(1)]).serve(relay, HERE)
      asker.write(bytes)
      asker.end()
      await served
      const said = await readMessage(asker, soon())
      assert.deepEqual((said as { ok: boolean }).ok, false)
    }),
  )
})

test('an answer that names no PeerIDs, or too many, is not believed', async () => {
  for (const peers of [['nobody'], Array.from({ length: 9 }, (_, i) => peer(i)), 'x', undefined]) {
    const [asker, relay] = duplexPair()
    const asked = askDirectory(asker, '734', soon())
    writeMessage(relay, { ok: true, peers })
    await assert.rejects(asked, { code: 'ERR_PROTOCOL' })
  }
})
