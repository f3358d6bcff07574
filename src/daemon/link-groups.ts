import type { Link } from '../config/config.ts'
import type { Logger } from '../log.ts'
import type { RemoteEvent } from '../session/remote.ts'
import { checkLink, startLink } from './link.ts'
import { type LinkStatus, Links } from './links.ts'
import type { Peers } from './peers.ts'
import type { ReloadReport } from './status.ts'

/** What is told of a link, by `peer/port`. */
export type LinkEvent = { event: 'link'; port: string } & RemoteEvent

interface LinkGroupsOptions {
  readonly peers: Peers
  /** Whether ports are waited for that can't be had at first, of links that do not say so themselves. */
  readonly wait: boolean
  /** See LinksOptions. */
  readonly lasting: boolean
  readonly report: (event: LinkEvent) => void
  readonly log: Logger
}

/** Links of commands that asked for them, for as long as these run. */
export interface GuestLinks extends AsyncDisposable {
  readonly links: readonly { port: string; at: string }[]
  readonly ended: Promise<void>
}

/** The links of this process: its own, which the configuration names, and those of guests. */
export class LinkGroups implements AsyncDisposable {
  readonly own: Links
  readonly #options: LinkGroupsOptions
  readonly #guests = new Set<Links>()

  constructor(options: LinkGroupsOptions) {
    this.#options = options
    this.own = this.#group(options.lasting, options.report)
  }

  /** @throws FarportError when a port, or its local end, can't be had */
  async add(links: readonly Link[], signal: AbortSignal): Promise<void> {
    for (const link of links) await this.#addTo(this.own, link, signal)
  }

  /** @throws FarportError when one can't be had; then there is none */
  async connect(
    links: readonly Link[],
    report: (event: LinkEvent) => void,
    signal: AbortSignal,
  ): Promise<GuestLinks> {
    await using undo = new AsyncDisposableStack()
    const theirs = undo.use(this.#group(false, report))
    this.#guests.add(theirs)
    undo.defer(() => void this.#guests.delete(theirs))
    for (const link of links) await this.#addTo(theirs, link, signal)
    const taken = undo.move()
    return {
      links: theirs.statuses().map(({ port, at }) => ({ port, at })),
      ended: theirs.ended,
      [Symbol.asyncDispose]: () => taken.disposeAsync(),
    }
  }

  /** Those of guests, too. */
  statuses(): LinkStatus[] {
    return [this.own, ...this.#guests].flatMap((links) => links.statuses())
  }

  async become(links: readonly Link[]): Promise<ReloadReport['links']> {
    return await this.own.become(links)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.own[Symbol.asyncDispose]()
  }

  #group(lasting: boolean, report: LinkGroupsOptions['report']): Links {
    const { peers, log } = this.#options
    return new Links({
      start: (link, watch) =>
        startLink(link, { peers, ...watch, log: log.child({ link: `${link.peer}/${link.port}` }) }),
      report: (port, event) => report({ event: 'link', port, ...event }),
      lasting,
      log,
    })
  }

  async #addTo(links: Links, link: Link, signal: AbortSignal): Promise<void> {
    // Standard input and output open the port at once, and so find out by themselves, a round trip earlier.
    if (!(link.wait ?? this.#options.wait) && link.endpoint.type !== 'stdio')
      checkLink(link, await this.#options.peers.ports(link.peer, signal, link.port))
    await links.add(link)
  }
}
