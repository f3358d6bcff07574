/**
 * What either side of a pairing tells the other, sealed in M5 and M6: UTF-8 JSON, at most 928 bytes.
 *
 *   { "name":  what the sender calls itself,
 *     "ports": which of the sender's ports the receiver may use,
 *     "may":   what it may do with them,
 *     "expires": until when, in milliseconds since 1970 (or absent),
 *     "addrs": multiaddrs where the sender can be reached }
 *
 * It ends up in a line of trusted_peers, so its values obey the rules of that file. Unknown keys and rights are ignored:
 * a newer peer may say more, and what is not understood is not granted.
 */
import { isDeepStrictEqual } from 'node:util'
import * as v from 'valibot'
import { FarportError } from '../errors.ts'
import { type Grant, RIGHTS, withImplied } from './grants.ts'
import { PairingError } from './pairing.ts'
import { formatTrustedPeer, parseTrustedPeers, type TrustedPeer } from './trusted-peers.ts'

/** What one side of a pairing says about itself and allows the other. */
export type Terms = Omit<TrustedPeer, 'peerId'>

/** What is left of a message of 1024 bytes beside the 96 of Noise's second. */
const MAX_TERMS_BYTES = 928

const strings = v.array(v.string())
const termsSchema = v.object({
  name: v.string(),
  ports: strings,
  may: strings,
  expires: v.exactOptional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(Date.UTC(10_000, 0))),
  ),
  addrs: strings,
})

/** @throws FarportError ERR_USAGE when these terms can't be in a line of trusted_peers, or are too long for a message */
export function encodeTerms(terms: Terms, sender: string): Uint8Array {
  const { name, ports, may, expires, addrs } = checked(terms, sender, (sentence) => {
    throw new FarportError('ERR_USAGE', sentence)
  })
  const bytes = Buffer.from(JSON.stringify({ name, ports, may, expires, addrs }))
  if (bytes.length <= MAX_TERMS_BYTES) return bytes
  throw new FarportError(
    'ERR_USAGE',
    `the ports and addresses are ${bytes.length - MAX_TERMS_BYTES} characters too long for an invite: name fewer, or use patterns such as plc-*`,
  )
}

/** @throws PairingError */
export function decodeTerms(bytes: Uint8Array, sender: string): Terms {
  const said = v.safeParse(termsSchema, parseJson(bytes))
  if (!said.success) throw new PairingError('terms')
  const may = withImplied(RIGHTS.filter((right) => said.output.may.includes(right)))
  return checked({ ...said.output, may }, sender, (sentence) => {
    throw new PairingError('terms', { cause: new Error(sentence) })
  })
}

/** The line of trusted_peers that comes of a pairing: what they said of themselves, what we allow them. */
export function lineFor(peerId: string, theirs: Terms, ours: Terms): TrustedPeer {
  return { ...grantOf(ours), name: theirs.name, peerId, addrs: theirs.addrs }
}

export function grantOf({ ports, may, expires }: Terms): Grant {
  return { ports, may: withImplied(may), ...(expires !== undefined && { expires }) }
}

/** Only what reads back as itself from a line of trusted_peers passes, so that no value can become another's. */
function checked(terms: Terms, sender: string, refuse: (sentence: string) => never): Terms {
  const wanted = { ...terms, may: withImplied(terms.may) }
  const { peers, problems } = parseTrustedPeers(formatTrustedPeer({ ...wanted, peerId: sender }))
  if (isDeepStrictEqual(peers, [{ ...wanted, peerId: sender }])) return wanted
  refuse(problems[0]?.sentence ?? 'this is more than a line of trusted_peers can say')
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new PairingError('terms', { cause })
  }
}
