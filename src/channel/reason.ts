/**
 * Why a channel is over, as the text of its CLOSE frame:
 *
 *   ""                      closed on purpose; nothing went wrong
 *   "ERR_CODE sentence"     a FarportError
 */
import { FarportError, isErrorCode } from '../errors.ts'
import { printable } from '../printable.ts'

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
