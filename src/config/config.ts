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
  readonly shares: readonly Share[]
  readonly links: readonly Link[]
  /** Keep trying when a link's peer or port is not there at the start, instead of failing. */
  readonly wait: boolean
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
}

/** A local endpoint joined to a port of a peer. */
export interface Link {
  /** The peer's name in trusted_peers, or its PeerID. */
  readonly peer: string
  readonly port: string
  readonly endpoint: Endpoint
  /** How long bytes and the channel outlive a lost connection. */
  readonly resumeMs: number
}

export type Endpoint =
  | { readonly type: 'pty'; readonly path: string }
  | { readonly type: 'rfc2217'; readonly host: string; readonly port: number }
  | { readonly type: 'raw'; readonly host: string; readonly port: number }
  | { readonly type: 'stdio' }
