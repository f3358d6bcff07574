/**
 * Why a channel is over, as the text of its CLOSE frame:
 *
 *   ""                      closed on purpose; nothing went wrong
 *   "ERR_CODE sentence"     a FarportError
 */
import { type ErrorCode, FarportError } from '../errors.ts'

const KNOWN: Record<ErrorCode, true> = {
  ERR_USAGE: true,
  ERR_HOME: true,
  ERR_IN_USE: true,
  ERR_NOT_TRUSTED: true,
  ERR_NOT_GRANTED: true,
  ERR_PORT_BUSY: true,
  ERR_NO_SUCH_PORT: true,
  ERR_DEVICE_ABSENT: true,
  ERR_PEER_UNREACHABLE: true,
  ERR_UNFIT: true,
  ERR_PROTOCOL: true,
  ERR_CHANNEL_LOST: true,
  ERR_INTERNAL: true,
}

/** Only a FarportError's words are meant for others; of any other error the peer learns that there was one. */
export function encodeReason(error: Error | null): string {
  // An abort is somebody here who wants to stop, not a failure.
  if (error === null || error.name === 'AbortError') return ''
  return error instanceof FarportError ? `${error.code} ${error.message}` : 'ERR_INTERNAL internal error'
}

/** The peer's error, safe to show on a terminal; undefined when it closed on purpose. */
export function decodeReason(reason: string): FarportError | undefined {
  if (reason === '') return undefined
  const [code = '', sentence = ''] = reason.split(/ (.*)/s)
  if (!isErrorCode(code)) return new FarportError('ERR_INTERNAL', 'the peer closed the channel with an error')
  return new FarportError(code, printable(sentence) || 'the peer closed the channel')
}

/** What a peer did that the protocol does not allow. */
export function violation(what: string): FarportError {
  return new FarportError('ERR_PROTOCOL', `the peer ${what}`)
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(KNOWN, code)
}

/** Control and format characters could move the cursor or turn the text around. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`)
}
