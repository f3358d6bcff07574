import type { ErrorCode } from '../errors.ts'
import { FarportError } from '../errors.ts'

/** What a script sees. These numbers never change their meaning. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notTrusted: 3,
  busy: 4,
  absent: 5,
  unreachable: 6,
  unfit: 7,
  interrupted: 130,
} as const

const exitCodes: Record<ErrorCode, number> = {
  ERR_USAGE: EXIT.usage,
  ERR_HOME: EXIT.failed,
  ERR_IN_USE: EXIT.failed,
  ERR_NOT_TRUSTED: EXIT.notTrusted,
  ERR_NOT_GRANTED: EXIT.notTrusted,
  ERR_PORT_BUSY: EXIT.busy,
  ERR_NO_SUCH_PORT: EXIT.absent,
  ERR_DEVICE_ABSENT: EXIT.absent,
  ERR_PEER_UNREACHABLE: EXIT.unreachable,
  ERR_UNFIT: EXIT.unfit,
  ERR_PROTOCOL: EXIT.failed,
  ERR_CHANNEL_LOST: EXIT.failed,
  ERR_DAMAGED: EXIT.failed,
  ERR_INTERNAL: EXIT.failed,
}

export function exitCodeOf(error: unknown): number {
  return error instanceof FarportError ? exitCodes[error.code] : EXIT.failed
}
