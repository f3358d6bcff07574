/** Stable names of what can go wrong. Scripts may match on them; the sentences may change. */
const ERROR_CODES = [
  /** The command line or a configuration file is wrong. */
  'ERR_USAGE',
  /** The home directory, or a file in it, can't be used as it is. */
  'ERR_HOME',
  /** A local address or path that farport was asked to open is taken. */
  'ERR_IN_USE',
  /** The peer does not know us, or we don't know the peer. */
  'ERR_NOT_TRUSTED',
  /** The peer knows us but does not let us do this. */
  'ERR_NOT_GRANTED',
  'ERR_PORT_BUSY',
  'ERR_NO_SUCH_PORT',
  'ERR_DEVICE_ABSENT',
  'ERR_PEER_UNREACHABLE',
  /** This machine or runtime can't do it. */
  'ERR_UNFIT',
  /** A peer sent what its protocol does not allow. */
  'ERR_PROTOCOL',
  /** A channel ended and can't be resumed. */
  'ERR_CHANNEL_LOST',
  /** A file that farport was asked to read is damaged or cut short. */
  'ERR_DAMAGED',
  'ERR_INTERNAL',
] as const

export type ErrorCode = (typeof ERROR_CODES)[number]

/** Whether somebody else's word is one of our codes. */
export function isErrorCode(word: string): word is ErrorCode {
  return (ERROR_CODES as readonly string[]).includes(word)
}

/**
 * The one error type people see. `message` is one sentence for a person and says what to do about it; the cause, if
 * another error is behind it, rides in `cause`.
 */
export class FarportError extends Error {
  override readonly name = 'FarportError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}
