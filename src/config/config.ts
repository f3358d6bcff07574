import type { CaptureOptions } from '../capture/capture-file.ts'
import type { LineFormat } from '../serial/line-format.ts'
import type { ResetProfile } from '../serial/line-sequence.ts'
import type { Packing } from '../serial/packer.ts'

/** Farport's port, on every address of the machine. */
export const DEFAULT_LISTEN: readonly string[] = ['/ip4/0.0.0.0/tcp/4001', '/ip6/::/tcp/4001']

/** Everything one farport process is asked to do. Built from flags; read-only from then on. */
export interface Config {
  readonly home: string
  /** Multiaddrs to listen on; empty for a process that only calls others. */
  readonly listen: readonly string[]
  /** Further multiaddrs under which others reach this machine, such as a forwarded port. */
  readonly announce?: readonly string[]
  /** Relays to be reached through: names in trusted_peers, or multiaddrs that end with the relay's PeerID. */
  readonly relays?: readonly string[]
  /** Makes this process a relay for the peers in trusted_peers that may `relay`. */
  readonly relay?: RelayConfig
  /**
   * For trying things out, when peers run on this very machine: direct paths are looked for by loopback addresses, too, and
   * not before the path through the relay has been there for so long.
   */
  readonly loopback?: { readonly afterMs: number }
  /** Where Prometheus finds this farport's metrics; by default nowhere. Port 0 is any free one. */
  readonly metrics?: { readonly host: string; readonly port: number }
  readonly shares: readonly Share[]
  readonly links: readonly Link[]
  /** Keep trying when a link's peer or port is not there at the start, instead of failing. */
  readonly wait: boolean
  /** A service: what can't be had now, such as a link's local end, is tried for again and again. Default false. */
  readonly lasting?: boolean
}

interface RelayConfig {
  /** Where it answers STUN, over UDP and TCP. Two, so that a peer can tell how its NAT maps; absent for no STUN. */
  readonly stunPorts?: readonly [number, number]
}

/** A serial port that peers may use. */
export interface Share {
  /** What peers call it. */
  readonly name: string
  /** A device path, or `simulated:gps`. */
  readonly device: string
  /** What of the device's last bytes is kept for who begins to watch, 0 for nothing. Default 16 KiB. */
  readonly replayBytes?: number
  /** How the line is when the device is opened; clients may change it. Default 9600 8N1 without flow control. */
  readonly line?: LineFormat
  readonly flow?: 'none' | 'rtscts' | 'xonxoff'
  /** DTR and RTS once the device has been opened, and before it is closed. */
  readonly onOpen?: { readonly dtr?: boolean; readonly rts?: boolean }
  readonly onClose?: { readonly dtr?: boolean; readonly rts?: boolean }
  /** What the device is sent when it has been opened, and before it is closed; as Latin-1. */
  readonly openString?: string
  readonly closeString?: string
  /** Sent to whoever begins to use the port, as Latin-1. */
  readonly banner?: string
  /** A client that neither sends nor gets a byte for so long loses the port. */
  readonly idleTimeoutMs?: number
  /** At most so many peers may watch. */
  readonly watchers?: number
  /** How the board is reset, where that is to be done here when a client begins to. */
  readonly reset?: ResetProfile
  /** How bytes are gathered on their way, both ways; by default they are not. */
  readonly pack?: Packing
  /** Where what passes is written. */
  readonly capture?: CaptureOptions
}

/** A local endpoint joined to a port of a peer. */
export interface Link {
  /** The peer's name in trusted_peers, or its PeerID. */
  readonly peer: string
  readonly port: string
  readonly endpoint: Endpoint
  /** How long bytes and the channel outlive a lost connection. */
  readonly resumeMs: number
  /** To hold the port, or to take it from whoever holds it, or only to watch. Default `use`. */
  readonly mode?: 'use' | 'steal' | 'watch'
  /** What a watcher wants of what the device sent before, at most. Default all that is kept there. */
  readonly replayBytes?: number
  /** False: the agent is not to run the port's reset sequence for us. */
  readonly reset?: boolean
  /** Whether to wait for a port that is in use or not there, and for one that another has taken over, instead of ending. */
  readonly wait?: boolean
  /** How the far line is to be when the port is opened. Data bits and parity stay so where programs can't ask for them. */
  readonly line?: LineFormat
}

export type Endpoint =
  | { readonly type: 'pty'; readonly path: string; readonly access?: PtyAccess }
  | { readonly type: 'rfc2217'; readonly host: string; readonly port: number }
  | { readonly type: 'raw'; readonly host: string; readonly port: number }
  | { readonly type: 'stdio' }
  /** A serial port of this machine. `modemLines`: whether its lines are crossed with those of the remote one. */
  | { readonly type: 'serial'; readonly device: string; readonly modemLines: boolean }

/** Which users of this machine may open a PTY, besides the one that runs farport. */
interface PtyAccess {
  /** Permission bits, 0o660 for owner and group. */
  readonly mode?: number
  /** Names or numbers. */
  readonly owner?: string
  readonly group?: string
}
