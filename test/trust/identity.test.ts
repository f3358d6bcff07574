import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { FarportError } from '../../src/errors.ts'
import { loadIdentity, peerIdOf } from '../../src/trust/identity.ts'

async function emptyHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'farport-identity-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  return home
}

const modeOf = async (path: string) => (await stat(path)).mode & 0o777
const load = (home: string) => loadIdentity(home, { create: true })
const root = process.getuid?.() === 0
const openssl = spawnSync('openssl', ['version']).status === 0

test('makes home and key, private from the start, and finds them again', async (t) => {
  const home = join(await emptyHome(t), 'not', 'there', 'yet')
  const made = await load(home)
  assert.equal(await modeOf(home), 0o700)
  assert.equal(await modeOf(join(home, 'identity.key')), 0o600)
  assert.equal(made.seed.length, 32)
  assert.deepEqual(await loadIdentity(home, { create: false }), made)
  assert.deepEqual(await readdir(home), ['identity.key'], 'nothing is left lying about')
})

test('without create, nothing is made', async (t) => {
  const home = join(await emptyHome(t), 'home')
  await assert.rejects(loadIdentity(home, { create: false }), { code: 'ERR_HOME', message: /farport id/ })
  await assert.rejects(stat(home), { code: 'ENOENT' })
  await mkdir(home)
  await assert.rejects(loadIdentity(home, { create: false }), { code: 'ERR_HOME', message: /farport id/ })
  assert.deepEqual(await readdir(home), [])
})

test('the PeerID is the one libp2p gives the same seed', async (t) => {
  const { peerId, seed } = await load(await emptyHome(t))
  assert.equal(peerId, peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', seed)).toString())
  assert.equal(peerIdOf(seed), peerId)
  // RFC 8032, section 7.1, test 1.
  const rfc = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex')
  assert.equal(peerIdOf(rfc), peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', rfc)).toString())
})

test('an existing key is never written to', async (t) => {
  const home = await emptyHome(t)
  await load(home)
  const path = join(home, 'identity.key')
  const before = await stat(path, { bigint: true })
  await load(home)
  const after = await stat(path, { bigint: true })
  assert.deepEqual([after.ino, after.mtimeNs, after.size], [before.ino, before.mtimeNs, before.size])
})

test('many starting at once all get one identity', async (t) => {
  const home = join(await emptyHome(t), 'home')
  const module = pathToFileURL(join(import.meta.dirname, '../../src/trust/identity.ts')).href
  const script = `import { loadIdentity } from ${JSON.stringify(module)}
    console.log((await loadIdentity(${JSON.stringify(home)}, { create: true })).peerId)`
  const child = async () =>
    (await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])).stdout.trim()
  const here = async () => (await load(home)).peerId
  const ids = await Promise.all([child(), child(), child(), ...Array.from({ length: 8 }, here)])
  assert.equal(new Set(ids).size, 1)
  assert.deepEqual(await readdir(home), ['identity.key'])
})

test('openssl reads our key, and we read what openssl makes', {
  skip: !openssl && 'no openssl here',
}, async (t) => {
  const home = await emptyHome(t)
  const { seed } = await load(home)
  const path = join(home, 'identity.key')
  const shown = spawnSync('openssl', ['pkey', '-in', path, '-noout', '-text'], { encoding: 'utf8' })
  assert.ok(shown.stdout.replaceAll(/[\s:]/g, '').includes(Buffer.from(seed).toString('hex')), shown.stderr)

  await rm(path)
  assert.equal(spawnSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', path]).status, 0)
  await chmod(path, 0o600)
  const foreign = await load(home)
  // The seed is that key: what it signs, the file's public key verifies.
  const signature = sign(null, Buffer.from('farport'), createPrivateKey(await readFile(path)))
  const ours = await generateKeyPairFromSeed('Ed25519', foreign.seed)
  assert.ok(await ours.publicKey.verify(Buffer.from('farport'), signature))
})

test('a home or key with loose modes is refused, with the command that mends it', async (t) => {
  const home = await emptyHome(t)
  const key = join(home, 'identity.key')
  const identity = await load(home)
  for (const [path, mode, says] of [
    [home, 0o770, /chmod go-w /],
    [home, 0o707, /chmod go-w /],
    [key, 0o640, /chmod go= /],
    [key, 0o604, /chmod go= /],
    [key, 0o660, /chmod go= /],
    [key, 0o610, /chmod go= /],
  ] as const) {
    const right = await modeOf(path)
    await chmod(path, mode)
    const error: unknown = await load(home).catch((e) => e)
    assert.ok(error instanceof FarportError && error.code === 'ERR_HOME')
    assert.match(error.message, says)
    const [, command] = /type {2}(.*)$/.exec(error.message) ?? []
    assert.equal(spawnSync('sh', ['-c', command ?? 'false']).status, 0, command)
    assert.deepEqual(await load(home), identity, 'the command typed, it works')
    await chmod(path, right)
  }
  await chmod(home, 0o755)
  await chmod(key, 0o400)
  assert.deepEqual(await load(home), identity, 'others may look into the home, and we need not write the key')
})

test('the command to type survives a path with spaces and quotes', async (t) => {
  const home = join(await emptyHome(t), "it's a 'home'; $(false)")
  await load(home)
  await chmod(home, 0o777)
  const error: unknown = await load(home).catch((e) => e)
  assert.ok(error instanceof FarportError)
  const [, command] = /type {2}(.*)$/.exec(error.message) ?? []
  assert.equal(spawnSync('sh', ['-c', command ?? 'false']).status, 0, command)
  await load(home)
})

test('a home or key of another user is refused', {
  skip: !root && 'only root can give files away',
}, async (t) => {
  const home = await emptyHome(t)
  await load(home)
  for (const path of [home, join(home, 'identity.key')]) {
    await chown(path, 54321, 54321)
    await assert.rejects(load(home), { code: 'ERR_HOME', message: /another user: type {2}sudo chown 0 / })
    await chown(path, 0, 0)
  }
  await load(home)
})

test('what is no usable key is refused, never replaced, never quoted', async (t) => {
  const home = await emptyHome(t)
  const path = join(home, 'identity.key')
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  const secret = pem.split('\n')[1] ?? ''
  const rsa = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  for (const [what, content, says] of [
    ['an empty file', '', /is empty/],
    ['a blank file', '\n \n', /is empty/],
    ['text', `not a key ${secret}`, /no private key in PEM/],
    ['half a key', pem.slice(0, 70), /no private key in PEM/],
    ['a damaged key', pem.replace('MC4', 'MC5'), /no private key in PEM/],
    ['a public key', publicKey.export({ format: 'pem', type: 'spki' }).toString(), /no private key in PEM/],
    ['another kind of key', rsa.export({ format: 'pem', type: 'pkcs8' }).toString(), /type ec, not Ed25519/],
    [
      'an encrypted key',
      privateKey.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' }).toString(),
      /passphrase/,
    ],
    ['an OpenSSH key', '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n', /OpenSSH/],
    ['a huge file', 'x'.repeat(20_000), /larger than/],
  ] as const) {
    await writeFile(path, content, { mode: 0o600 })
    const error: unknown = await load(home).catch((e) => e)
    assert.ok(error instanceof FarportError && error.code === 'ERR_HOME', what)
    assert.match(error.message, says, what)
    assert.ok(error.message.includes(path), what)
    const everything = `${error.stack}${String(error.cause)}`
    assert.ok(!everything.includes(secret.slice(0, 30)), `${what}: quotes the key`)
    assert.equal(await readFile(path, 'utf8'), content, what)
  }
})

test('a pipe, a directory or a dangling link in the place of the key does not hang or crash', async (t) => {
  const home = await emptyHome(t)
  const path = join(home, 'identity.key')
  for (const [make, says] of [
    [() => void spawnSync('mkfifo', ['-m', '600', path]), /not a regular file/],
    [() => mkdir(path, { mode: 0o700 }), /not a regular file/],
    [() => symlink('/nowhere', path), /there is no/],
  ] as const) {
    await make()
    await assert.rejects(load(home), { code: 'ERR_HOME', message: says })
    await rm(path, { recursive: true })
  }
  const file = join(home, 'a-file')
  await writeFile(file, '')
  await assert.rejects(load(file), { code: 'ERR_HOME' })
  await assert.rejects(loadIdentity(file, { create: false }), {
    code: 'ERR_HOME',
    message: /not a directory/,
  })
})
