/** What noise.ts uses and clears of noise-handshake 4.2.0, which has no types of its own. */
declare module 'noise-handshake' {
  import type { KeyPair } from 'noise-handshake/dh.js'

  export default class NoiseState {
    constructor(pattern: 'XXpsk0', initiator: boolean, staticKeyPair: KeyPair, options: { psk: Uint8Array })
    /** Has no null: undefined throws. */
    initialise(prologue: Uint8Array): void
    send(payload: Uint8Array): Uint8Array
    /** Keeps parts of `message`, and overwrites them with zeros at the end. */
    recv(message: Uint8Array): Uint8Array

    readonly complete: boolean
    /** The handshake hash, once complete. */
    readonly hash: Uint8Array | null
    readonly psk: Uint8Array
    /** Ours and theirs, lasting and ephemeral. */
    readonly s: KeyPair
    readonly e: KeyPair | null
    readonly rs: Uint8Array | null
    readonly key: Uint8Array | null
    readonly chainingKey: Uint8Array | null
    readonly tx: Uint8Array | null
    readonly rx: Uint8Array | null
  }
}

declare module 'noise-handshake/dh.js' {
  /** X25519, 32 bytes each. */
  export interface KeyPair {
    readonly publicKey: Uint8Array
    readonly secretKey: Uint8Array
  }

  const dh: { generateKeyPair(secretKey?: Uint8Array): KeyPair }
  export default dh
}
