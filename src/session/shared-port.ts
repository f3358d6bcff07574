import type { ResetProfile } from '../serial/line-sequence.ts'
import type { Packing } from '../serial/packer.ts'
import type { PortSource } from '../serial/port.ts'
import type { PortHabits } from './port-habits.ts'

/** A port that is shared, and how. */
export interface SharedPort {
  readonly name: string
  readonly source: PortSource
  /** What of the device's last bytes is kept for who begins to watch, 0 for nothing. Default 16 KiB. */
  readonly replayBytes?: number
  /** What is done each time the device is opened and closed. */
  readonly habits?: PortHabits
  /** Sent to whoever begins to use the port, as Latin-1. */
  readonly banner?: string
  /** A holder that neither sends nor gets a byte for so long loses the port. */
  readonly idleTimeoutMs?: number
  /** At most so many may watch; default and most 16. */
  readonly watchers?: number
  /** See ServeOptions. */
  readonly reset?: ResetProfile
  readonly pack?: Packing
}
