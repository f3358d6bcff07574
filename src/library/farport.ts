import { resolveHome } from '../config/home.ts'
import { startDaemon } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { createLog, type Logger } from '../log.ts'
import { parseLineFormat } from '../serial/line-format.ts'
import type { SerialPort } from '../serial/port.ts'
import type { Listing } from '../session/listing.ts'

const DEFAULT_RESUME_MS = 30_000

export interface FarportOptions {
  /** Where the key and trusted_peers are. Default as for the commands: FARPORT_HOME, else the user's own. */
  home?: string
  /** Default: nothing is logged. */
  log?: Logger
}

export interface OpenPortOptions {
  /** How the line is to be: `7E1`, or with its speed `9600-7E1`. Default as it is. */
  line?: string
  /** How long bytes on their way outlive a lost connection. Default 30 s. */
  resumeMs?: number
  /** Only see what the device sends, beside whoever uses the port. */
  watch?: boolean
  /** Take the port from whoever uses it, where `may=steal` allows that. Not with `watch`. */
  steal?: boolean
  /** With `watch`: at most so much of what the device sent before. Default all that is kept there. */
  replayBytes?: number
  /** False: the agent is not to run the port's reset sequence for us. */
  reset?: boolean
  /** Ends the attempt to open; a port that is open stays so. */
  signal?: AbortSignal
}

/** A client node: one key, one connection to each peer however many ports are open. */
export interface Farport extends AsyncDisposable {
  readonly peerId: string
  /**
   * Opens a port of a peer, `workshop/gps`. From then on lost connections are mended below it.
   * @throws FarportError ERR_USAGE, ERR_NOT_TRUSTED, ERR_NOT_GRANTED, ERR_PORT_BUSY, ERR_NO_SUCH_PORT,
   * ERR_DEVICE_ABSENT, ERR_PEER_UNREACHABLE
   */
  open(path: string, options?: OpenPortOptions): Promise<SerialPort>
  /** The peers in trusted_peers, by name. */
  peers(): string[]
  /** The ports a peer lets us use. @throws FarportError as `open` */
  ports(peer: string, options?: { signal?: AbortSignal }): Promise<Listing[]>
}

/**
 * Starts a client node. It listens on nothing, and shares its home with a farport that runs there. Disposing closes its
 * ports; a process stays as long as one is open.
 * @throws FarportError ERR_HOME
 */
export async function openFarport(options: FarportOptions = {}): Promise<Farport> {
  const { log = createLog('silent') } = options
  const closing = new AbortController()
  const daemon = await startDaemon(
    { home: resolveHome(options.home), listen: [], shares: [], links: [], wait: true },
    { log, signal: closing.signal, report: (event) => log.debug(event, 'a port reports') },
  )
  const open = new Set<SerialPort>()
  const until = (signal?: AbortSignal) =>
    signal === undefined ? closing.signal : AbortSignal.any([closing.signal, signal])

  return {
    peerId: daemon.peerId,

    async open(path, options = {}) {
      const { line, resumeMs = DEFAULT_RESUME_MS, replayBytes, reset, signal } = options
      const wanted = {
        ...parsePath(path),
        resumeMs,
        mode: modeOf(options),
        ...(replayBytes !== undefined && { replayBytes }),
        ...(reset !== undefined && { reset }),
        ...(line !== undefined && { line: parseLineFormat(line) }),
      }
      const ended = until(signal)
      ended.throwIfAborted()
      const port = await daemon.open(wanted, ended)
      open.add(port)
      port.once('close', () => open.delete(port))
      return port
    },

    peers: () => daemon.peers(),

    async ports(peer, { signal } = {}) {
      return await daemon.portsOf(peer, until(signal))
    },

    async [Symbol.asyncDispose]() {
      closing.abort(new FarportError('ERR_CHANNEL_LOST', 'this farport was closed'))
      for (const port of open) port.destroy()
      await daemon[Symbol.asyncDispose]()
    },
  }
}

function modeOf({ watch = false, steal = false }: OpenPortOptions): 'watch' | 'steal' | 'use' {
  if (watch && steal)
    throw new FarportError('ERR_USAGE', 'watch or steal: who only watches takes the port from nobody')
  return watch ? 'watch' : steal ? 'steal' : 'use'
}

function parsePath(path: string): { peer: string; port: string } {
  const [peer, port, ...rest] = path.split('/')
  if (!peer || !port || rest.length > 0)
    throw new FarportError('ERR_USAGE', `"${path}" is not PEER/PORT: write for example workshop/gps`)
  return { peer, port }
}
