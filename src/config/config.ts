/** Everything one farport process is asked to do. Built from flags; read-only from then on. */
export interface Config {
  readonly home: string
  /** Multiaddrs to listen on; empty for a process that only calls others. */
  readonly listen: readonly string[]
  readonly shares: readonly Share[]
  readonly links: readonly Link[]
  /** Keep trying when a link's peer or port is not there at the start, instead of failing. */
  readonly wait: boolean
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
