/**
 * Who this farport is: one Ed25519 key in `identity.key`, in PKCS#8 PEM as `openssl pkey` reads and writes it. Losing
 * the file is losing the name under which every peer knows us; whoever copies it is us.
 *
 * Beside it, for as long as peers are told of another key: `identity.next`, in the same form, which takes the place of
 * `identity.key` in one step, so that at every moment there is one key, and it is whole.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import { createFile, replaceFile } from './durable-file.ts'
import { formatPeerId } from './peer-id.ts'
import { checkHome, isMissing, readStrictly } from './strict-modes.ts'

export interface Identity {
  readonly peerId: string
  /** The private key: 32 bytes as in RFC 8032. Never log an Identity. */
  readonly seed: Uint8Array
}

const KEY = 'identity.key'
const NEXT_KEY = 'identity.next'
const OLD_KEY = 'identity.old'

/** A PKCS#8 PEM of an Ed25519 key has 119 bytes; some tools put a readable dump in front. */
const MAX_KEY_FILE_BYTES = 16 * 1024

/** PKCS#8 (RFC 8410) around an Ed25519 seed: this, then the 32 bytes. */
const PKCS8_HEADER = Buffer.from('302e020100300506032b657004220420', 'hex')

/**
 * This home's identity. With `create`, a missing home and a missing key are made; an existing key is never touched, and
 * of several processes that start at once all get the same one.
 * @throws FarportError ERR_HOME when there is none, or it can't be used as it is
 */
export async function loadIdentity(home: string, { create }: { create: boolean }): Promise<Identity> {
  const path = join(home, KEY)
  if (create) await makeHome(home)
  try {
    await checkHome(home)
    return await readIdentity(path, LOST_KEY)
  } catch (error) {
    if (!isMissing(error)) throw error
    if (!create)
      throw new FarportError('ERR_HOME', `there is no identity in ${home} yet: type  farport id`, {
        cause: error,
      })
  }
  return await createKey(path, LOST_KEY)
}

/**
 * The key that is to take the place of this home's identity, if there is one; with `create` it is made. Of several processes
 * at once all get the same one.
 * @throws FarportError ERR_HOME when it can't be used as it is
 */
export async function loadNextIdentity(home: string, options: { create: true }): Promise<Identity>
export async function loadNextIdentity(
  home: string,
  options: { create: boolean },
): Promise<Identity | undefined>
export async function loadNextIdentity(
  home: string,
  { create }: { create: boolean },
): Promise<Identity | undefined> {
  const path = join(home, NEXT_KEY)
  const { peerId } = await loadIdentity(home, { create: false })
  try {
    const next = await readIdentity(path, LOST_NEXT_KEY)
    if (next.peerId !== peerId) return next
    // A switch died on its last step: see switchIdentity().
    await rm(path, { force: true })
  } catch (error) {
    if (!isMissing(error)) throw error
  }
  return create ? await createKey(path, LOST_NEXT_KEY) : undefined
}

/**
 * Puts the next key in the identity's place. With `keepOld` the key that was there is kept as `identity.old`, instead of one
 * that may be there, and its path is the answer; else it is gone.
 * @throws FarportError ERR_HOME when a file can't be read or written; then the identity is what it was
 */
export async function switchIdentity(
  home: string,
  { keepOld }: { keepOld: boolean },
): Promise<string | undefined> {
  const [path, next, old] = [join(home, KEY), join(home, NEXT_KEY), join(home, OLD_KEY)]
  await readIdentity(next, LOST_NEXT_KEY)
  const keys = await Promise.all(
    [path, next].map((file) => readStrictly(file, MAX_KEY_FILE_BYTES, 'accessible by others')),
  )
  const [oldKey, nextKey] = keys as [Buffer, Buffer]
  try {
    if (keepOld) {
      await rm(old, { force: true })
      await createFile(old, oldKey)
    }
    // Not by renaming: this way the key is on the disk before anybody is told that it is in force.
    await replaceFile(path, nextKey)
    await rm(next, { force: true })
  } catch (cause) {
    throw unwritable(path, cause)
  }
  return keepOld ? old : undefined
}

/** A private key of 32 bytes as Node wants it. */
export function privateKeyOf(seed: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8_HEADER, seed]), format: 'der', type: 'pkcs8' })
}

/** The PeerID that belongs to a private key of 32 bytes. */
export function peerIdOf(seed: Uint8Array): string {
  return formatPeerId(publicBytes(privateKeyOf(seed)))
}

/** What else to do about a key file that can't be used. */
const LOST_KEY =
  'restore it from a backup, or move it away for a new identity (every peer must then pair again)'
const LOST_NEXT_KEY = 'delete it, and `farport id rotate` makes another key'

async function createKey(path: string, otherwise: string): Promise<Identity> {
  try {
    await createFile(path, newKey())
  } catch (cause) {
    throw unwritable(path, cause)
  }
  // Also the loser of a race reads what the winner wrote.
  return await readIdentity(path, otherwise)
}

function unwritable(path: string, cause: unknown): FarportError {
  const reason = (cause as NodeJS.ErrnoException).code ?? cause
  return new FarportError('ERR_HOME', `${path} can't be written (${reason}): name another home with --home`, {
    cause,
  })
}

async function makeHome(home: string): Promise<void> {
  try {
    await mkdir(home, { recursive: true, mode: 0o700 })
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? cause
    throw new FarportError('ERR_HOME', `${home} can't be made (${reason}): name another home with --home`, {
      cause,
    })
  }
}

async function readIdentity(path: string, otherwise: string): Promise<Identity> {
  const pem = await readStrictly(path, MAX_KEY_FILE_BYTES, 'accessible by others')
  const key = parseKey(path, pem.toString('latin1'), otherwise)
  const { d } = key.export({ format: 'jwk' })
  return { peerId: formatPeerId(publicBytes(key)), seed: Buffer.from(d ?? '', 'base64url') }
}

/** What OpenSSL says about a bad key helps nobody and may quote it, so it does not become the cause. */
function parseKey(path: string, pem: string, otherwise: string): KeyObject {
  if (pem.trim() === '') throw new FarportError('ERR_HOME', `${path} is empty: ${otherwise}`)
  if (pem.includes('BEGIN OPENSSH PRIVATE KEY'))
    throw new FarportError('ERR_HOME', `${path} is an OpenSSH key, which farport does not take: ${otherwise}`)
  if (pem.includes('ENCRYPTED'))
    throw new FarportError(
      'ERR_HOME',
      `${path} has a passphrase, which nobody can type for a daemon: store it without, see openssl pkey`,
    )
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    throw new FarportError('ERR_HOME', `${path} holds no private key in PEM form: ${otherwise}`)
  }
  if (key.asymmetricKeyType === 'ed25519') return key
  throw new FarportError(
    'ERR_HOME',
    `${path} is a key of type ${key.asymmetricKeyType}, not Ed25519: ${otherwise}`,
  )
}

function newKey(): string {
  return generateKeyPairSync('ed25519', {
    privateKeyEncoding: { format: 'pem', type: 'pkcs8' },
    publicKeyEncoding: { format: 'pem', type: 'spki' },
  }).privateKey
}

function publicBytes(key: KeyObject): Uint8Array {
  return Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url')
}
