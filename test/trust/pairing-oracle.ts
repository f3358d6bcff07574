/**
 * Both sides of the pairing a second time, from the comment in pairing.ts and on other libraries, with a place to cheat
 * at each step. Noise itself is ours; its golden vector is in noise.test.ts.
 */
import { hkdfSync, randomBytes } from 'node:crypto'
import sodium from 'libsodium-wrappers-sumo'
import { generateStaticKey, NoiseHandshake } from '../../src/trust/noise.ts'
import { lvs, oracleGenerator, oracleKey, type Point, pointOf } from './cpace-oracle.ts'

await sodium.ready

export interface Talk {
  joiner: string
  inviter: string
  inviteId: Uint8Array
  secret: Uint8Array
}

const NAME = Buffer.from('farport-pair-v1')

export function blake2b(bytes: Uint8Array): Uint8Array {
  return sodium.crypto_generichash(64, bytes, null)
}

export const channelOf = ({ joiner, inviter, inviteId }: Talk): Uint8Array =>
  lvs(NAME, Buffer.from(joiner), Buffer.from(inviter), inviteId)

export const sessionOf = (joinerNonce: Uint8Array, inviterNonce: Uint8Array): Uint8Array =>
  blake2b(lvs(Buffer.from('farport-pair-v1 sid'), joinerNonce, inviterNonce)).subarray(0, 32)

export const pskOf = (key: Uint8Array): Uint8Array =>
  new Uint8Array(hkdfSync('sha512', key, new Uint8Array(0), 'farport psk v1', 32))

export const prologueOf = (talk: Talk, said: Uint8Array[]): Uint8Array =>
  blake2b(lvs(NAME, channelOf(talk), ...said))

/** One side; what it announces and what it uses may be made to differ. */
export class OracleSide {
  readonly talk: Talk
  readonly announced = generateStaticKey()
  staticKey = this.announced
  readonly nonce = randomBytes(16)
  readonly scalar = BigInt(`0x${randomBytes(31).toString('hex')}`)
  readonly said: Uint8Array[] = []
  noise: NoiseHandshake | undefined

  constructor(talk: Talk) {
    this.talk = { ...talk }
  }

  hello(): Uint8Array {
    return this.keep(Buffer.concat([Uint8Array.of(1), this.talk.inviteId, this.nonce]))
  }

  keep(message: Uint8Array): Uint8Array {
    this.said.push(message)
    return message
  }

  get session(): Uint8Array {
    return sessionOf(this.#said(0).subarray(9), this.#said(1))
  }

  generator(): Point {
    return oracleGenerator({
      password: this.talk.secret,
      channel: channelOf(this.talk),
      session: this.session,
    })
  }

  share(): Uint8Array {
    const share = this.generator().multiply(this.scalar).toBytes()
    return this.keep(Buffer.concat([share, this.announced.publicKey]))
  }

  /** After M3. */
  begin(role: 'initiator' | 'responder'): NoiseHandshake {
    const [m2, m3] = [this.#said(2), this.#said(3)]
    const theirs = (role === 'initiator' ? m3 : m2).subarray(0, 32)
    const product = pointOf(theirs).multiply(this.scalar).toBytes()
    const parts = [m2.subarray(0, 32), m2.subarray(32), m3.subarray(0, 32), m3.subarray(32)]
    const psk = pskOf(oracleKey(this.session, product, parts))
    const prologue = prologueOf(this.talk, this.said)
    this.noise = new NoiseHandshake({ role, psk, prologue, staticKey: this.staticKey })
    return this.noise
  }

  #said(index: number): Uint8Array {
    const message = this.said[index]
    if (message === undefined) throw new Error(`M${index} has not been said yet`)
    return message
  }
}
