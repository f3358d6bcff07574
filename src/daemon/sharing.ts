import type { CaptureOptions } from '../capture/capture-file.ts'
import { Captures } from '../capture/captures.ts'
import type { Share } from '../config/config.ts'
import type { Logger } from '../log.ts'
import type { Overlay } from '../overlay/node.ts'
import { SERIAL_PROTOCOL } from '../session/hello.ts'
import { PortHost } from '../session/host.ts'
import { PORTS_PROTOCOL } from '../session/listing.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import type { Audit } from './audit-log.ts'
import type { PeerNames } from './peer-names.ts'
import { SharedPorts } from './shared-ports.ts'
import type { DaemonStatus, ReloadReport } from './status.ts'
import type { OnlyTrusted } from './trusted-callers.ts'

interface SharingOptions {
  readonly trust: TrustStore
  readonly names: PeerNames
  readonly audit: Audit | undefined
  readonly log: Logger
}

/** The ports of this machine that peers may use: their devices, who is on them, and what is kept of what passes. */
export class Sharing implements AsyncDisposable {
  readonly #ports: SharedPorts
  readonly #captures: Captures
  readonly #host: PortHost
  readonly #names: PeerNames
  readonly #parts: AsyncDisposableStack

  private constructor(
    { ports, captures, host }: { ports: SharedPorts; captures: Captures; host: PortHost },
    names: PeerNames,
    parts: AsyncDisposableStack,
  ) {
    this.#ports = ports
    this.#captures = captures
    this.#host = host
    this.#names = names
    this.#parts = parts
  }

  static async start(shares: readonly Share[], options: SharingOptions): Promise<Sharing> {
    const { trust, names, audit, log } = options
    await using stack = new AsyncDisposableStack()
    const ports = await SharedPorts.start(shares.map(withoutCapture), { log })
    // Closed behind the ports.
    const captures = stack.use(new Captures(log))
    await captures.become(capturesOf(shares))
    const host = stack.use(
      new PortHost({
        ports: ports.ports,
        rights: (peerId, port) => trust.rights(peerId, port),
        nameOf: (peerId) => names.of(peerId),
        tell: (event) => audit?.record(event),
        tap: (...passing) => captures.record(...passing),
        log,
      }),
    )
    stack.use(ports.follow((now) => host.become(now)))
    return new Sharing({ ports, captures, host }, names, stack.move())
  }

  /** Answers peers from now on. */
  async serve(overlay: Overlay, onlyTrusted: OnlyTrusted): Promise<void> {
    const host = this.#host
    await overlay.handle(
      SERIAL_PROTOCOL,
      onlyTrusted((stream, peerId, path) => host.accept(stream, peerId, path)),
    )
    await overlay.handle(
      PORTS_PROTOCOL,
      onlyTrusted((stream, peerId, path) => host.answerPorts(stream, peerId, path)),
    )
  }

  /** Whose devices are not there now. */
  async absent(): Promise<{ port: string; device: string }[]> {
    return await this.#ports.absent()
  }

  /** Ends what trusted_peers no longer covers. */
  enforce(): void {
    this.#host.enforce()
  }

  async become(shares: readonly Share[]): Promise<ReloadReport['ports']> {
    const report = await this.#ports.become(shares.map(withoutCapture))
    await this.#captures.become(capturesOf(shares))
    return report
  }

  /** How each port is. `overlay` knows the paths to their holders. */
  async statuses(overlay: Pick<Overlay, 'paths'>): Promise<DaemonStatus['ports']> {
    const statuses = await this.#host.statuses()
    return statuses.map(({ holder, ...port }) => {
      const [best] = holder === undefined ? [] : overlay.paths(holder)
      return {
        ...port,
        ...this.#captures.status(port.name),
        ...(holder !== undefined && { holder: this.#names.of(holder) ?? holder }),
        ...(best && { path: best.kind }),
      }
    })
  }

  /** The shortest way there and back to each peer that uses a port, in milliseconds. */
  roundTrips(): Map<string, number> {
    return this.#host.roundTrips()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync()
  }
}

/** As its users see it: they go on when only its capture changes. */
function withoutCapture({ capture: _, ...share }: Share): Share {
  return share
}

function capturesOf(shares: readonly Share[]): Map<string, CaptureOptions> {
  return new Map(shares.flatMap(({ name, capture }) => (capture === undefined ? [] : [[name, capture]])))
}
