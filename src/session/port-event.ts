import type { LinesChanged } from './port-commands.ts'

/** The peer at the other end of a stream. */
export interface Caller {
  readonly peerId: string
  readonly path?: CallerPath
}

/** How a stream came here. */
export interface CallerPath {
  readonly kind: 'direct' | 'relayed'
  /** A multiaddr. */
  readonly remoteAddress: string
}

/** What a peer does with a port. Settings are as formatSettings() says them, bytes are data alone. */
export type PortEvent = Caller & { readonly port: string } & (
    | { readonly event: 'open'; readonly mode?: 'watch' }
    | { readonly event: 'configure'; readonly from: string; readonly to: string }
    | { readonly event: 'lines'; readonly changed: LinesChanged }
    /** Takes the port from the peer that holds it, whose `close` comes before. */
    | { readonly event: 'steal'; readonly from: string }
    | {
        readonly event: 'close'
        readonly toDevice: number
        readonly fromDevice: number
        readonly durationMs: number
        readonly reason: string
        readonly mode?: 'watch'
        /** Of a watcher: bytes it missed because it was too slow, and bytes it sent in vain. */
        readonly skipped?: number
        readonly ignored?: number
      }
  )

/** What a peer did, or was not let do. */
export type HostEvent = PortEvent | (Caller & { readonly event: 'refuse'; readonly reason: string })
