import { type ChildProcess, execFileSync, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { accessSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Namespaces } from './namespaces.ts'

/**
 * What a site's router does. Mapping and filtering in the words of RFC 4787.
 *
 *   public          no router: the host has the public address itself
 *   fullcone        endpoint-independent mapping and filtering: all that comes in goes to the first host
 *   addrrestricted  endpoint-independent mapping, address-dependent filtering
 *   portrestricted  endpoint-independent mapping, address-and-port-dependent filtering: a plain Linux masquerade
 *   symmetric       another random port for each destination
 *   udpblocked      portrestricted for TCP; UDP does not get out
 *   webonly         portrestricted, and only TCP to ports 80 and 443 gets out
 */
export type NatType = (typeof NAT_TYPES)[number]
export const NAT_TYPES = [
  'public',
  'fullcone',
  'addrrestricted',
  'portrestricted',
  'symmetric',
  'udpblocked',
  'webonly',
] as const

/** One router, or several in a row, the one nearest to the host first: `['portrestricted', 'symmetric']` is CGNAT. */
export type Site = NatType | readonly [NatType, ...NatType[]]

export interface NatLabOptions {
  /** By name; each has a host of its name and, unless public, a second one on the same LAN: `a`, `a2`. */
  sites: Readonly<Record<string, Site>>
  /** What all routers do with what nobody asked for: `accept` lets the router's own kernel answer it. */
  wan?: 'drop' | 'reject' | 'accept'
  /** For everything that goes from one site or relay to another, one way. */
  delayMs?: number
  /** How long a router remembers a UDP mapping that was used one way, and both ways. */
  udpTimeoutSeconds?: number
  udpStreamTimeoutSeconds?: number
}

export type Blocked = 'udp' | 'tcp' | 'all' | 'relay'

/** Behind the site's number: PUBLIC.n.10. Must look public: libp2p takes the documentation ranges for private ones. */
const PUBLIC = '45.33'
const RELAY_NET = 1
const DELAY_DEVICE = 'delay0'

/** Why no laboratory can be had here; undefined where it can. In CI a missing laboratory is an error, not a skip. */
export function whyNoNatLab(): string | undefined {
  const reason = missing()
  if (reason !== undefined && process.env.CI === 'true')
    throw new Error(`the NAT laboratory is needed here: ${reason}`)
  return reason
}

function missing(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'network namespaces need root on Linux'
  try {
    accessSync('/dev/net/tun')
    execFileSync('nft', ['--version'], { stdio: 'ignore' })
    // Whether we really may, which in a container is not said by being root.
    execFileSync('unshare', ['--net', 'ip', 'link', 'add', 'lab0', 'type', 'veth'], { stdio: 'ignore' })
    return undefined
  } catch (error) {
    return `needs iproute2, nftables and /dev/net/tun: ${(error as Error).message}`
  }
}

interface SiteState {
  net: number
  wan: string
  /** From the outside in. */
  routers: string[]
}

/**
 * An internet of network namespaces: a relay with two public addresses, and sites behind routers.
 *
 *     relay 45.33.1.10, .11 ── net ── nat-a 45.33.2.10 ── a 192.168.2.2, a2 192.168.2.3
 *                               └──── nat-b 45.33.3.10 ── b 192.168.3.2, b2 192.168.3.3
 *
 * The hosts end with this process, however it ends, and nobody else sees them: any number of laboratories can be up at
 * once.
 */
export class NatLab implements AsyncDisposable {
  readonly #hosts = new Namespaces()
  readonly #sites = new Map<string, SiteState>()
  readonly #cuts = new Set<string>()
  readonly #blocks = new Map<string, Blocked>()

  private constructor() {}

  static async up(options: NatLabOptions): Promise<NatLab> {
    const lab = new NatLab()
    try {
      await lab.#build(options)
      return lab
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  /** The processes that the namespaces live by. */
  get holders(): number[] {
    return this.#hosts.holders
  }

  /** The relay's two public addresses. */
  get relayAddresses(): readonly [string, string] {
    return [`${PUBLIC}.${RELAY_NET}.10`, `${PUBLIC}.${RELAY_NET}.11`]
  }

  /** The address by which the world sees this site now. */
  publicAddress(site: string): string {
    return this.#site(site).wan
  }

  /** A host's own address: `a` or `a2`. */
  hostAddress(host: string): string {
    const site = this.#site(host.replace(/2$/, ''))
    return site.routers.length === 0 ? site.wan : `192.168.${site.net}.${host.endsWith('2') ? 3 : 2}`
  }

  /**
   * Starts a program on a host, or on `relay`, `net`, a router (`nat-a`). It is killed when this process or the
   * laboratory ends.
   */
  exec(host: string, argv: readonly [string, ...string[]], options: SpawnOptions = {}): ChildProcess {
    return this.#hosts.exec(host, argv, options)
  }

  /** Runs a program on a host to its end, and gives what it wrote. @throws when it fails. */
  async run(host: string, argv: readonly [string, ...string[]], input = ''): Promise<string> {
    return await this.#hosts.run(host, argv, input)
  }

  /** Nothing passes between two sites, or a site and `relay`, until healed. */
  async cut(one: string, other: string): Promise<void> {
    this.#cuts.add([one, other].sort().join(' '))
    await this.#filter()
  }

  async heal(one: string, other: string): Promise<void> {
    this.#cuts.delete([one, other].sort().join(' '))
    await this.#filter()
  }

  /** Nothing of a kind passes to or from a site; the latest block of a site counts. */
  async block(site: string, what: Blocked): Promise<void> {
    this.#blocks.set(site, what)
    await this.#filter()
  }

  async unblock(site: string): Promise<void> {
    this.#blocks.delete(site)
    await this.#filter()
  }

  /** The site's routers forget every mapping, as when they reboot. */
  async flush(site: string): Promise<void> {
    const program = fileURLToPath(new URL('conntrack-flush.ts', import.meta.url))
    for (const router of this.#site(site).routers) await this.run(router, [process.execPath, program])
  }

  /** The site gets another public address, as after a provider's reconnect; its connections are dead. */
  async renumber(site: string): Promise<string> {
    const state = this.#site(site)
    const [outermost] = state.routers
    state.wan = `${PUBLIC}.${state.net}.${Number(state.wan.split('.')[3]) + 1}`
    const device = outermost === undefined ? 'eth0' : 'wan'
    await this.#hosts.ip(outermost ?? site, [
      `addr flush dev ${device} scope global`,
      `addr add ${state.wan}/24 dev ${device}`,
      `route replace default via ${PUBLIC}.${state.net}.1`,
    ])
    await this.flush(site)
    return state.wan
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hosts[Symbol.asyncDispose]()
  }

  async #build({ sites, delayMs = 0, ...options }: NatLabOptions): Promise<void> {
    await Promise.all([this.#hosts.add('net'), this.#hosts.add('relay')])
    await this.#hosts.set('net', 'net/ipv4/ip_forward', '1')
    await this.#hosts.link(
      ['net', `to-${RELAY_NET}`, `${PUBLIC}.${RELAY_NET}.1/24`],
      ['relay', 'eth0', `${this.relayAddresses[0]}/24`],
    )
    await this.#hosts.ip('relay', [
      `addr add ${this.relayAddresses[1]}/24 dev eth0`,
      `route add default via ${PUBLIC}.${RELAY_NET}.1`,
    ])
    await this.#nft(
      'net',
      'table ip lab {\n chain transit { type filter hook forward priority 0; policy accept; }\n}\n',
    )
    const building = Object.entries(sites).map(([name, site], k) =>
      this.#addSite(name, site, RELAY_NET + 1 + k, options),
    )
    // All of them, also after a failure: what is torn down then must be complete.
    for (const built of await Promise.allSettled(building))
      if (built.status === 'rejected') throw built.reason
    if (delayMs > 0) await this.#delay(delayMs)
  }

  async #addSite(
    name: string,
    site: Site,
    net: number,
    options: Omit<NatLabOptions, 'sites'>,
  ): Promise<void> {
    const chain = typeof site === 'string' ? [site] : site
    const state: SiteState = { net, wan: `${PUBLIC}.${net}.10`, routers: [] }
    this.#sites.set(name, state)
    let outer = { host: 'net', device: `to-${net}`, address: `${PUBLIC}.${net}.1`, inner: state.wan }
    for (const [depth, type] of chain.toReversed().entries()) {
      if (type === 'public') break
      const router = depth === 0 ? `nat-${name}` : `nat-${name}-${depth + 1}`
      state.routers.push(router)
      await this.#hosts.add(router)
      await this.#hosts.link(
        [outer.host, outer.device, `${outer.address}/24`],
        [router, 'wan', `${outer.inner}/24`],
      )
      await this.#hosts.ip(router, [`route add default via ${outer.address}`])
      await this.#hosts.set(router, 'net/ipv4/ip_forward', '1')
      const { udpTimeoutSeconds = 30, udpStreamTimeoutSeconds = 120, wan = 'drop' } = options
      await this.#hosts.set(router, 'net/netfilter/nf_conntrack_udp_timeout', `${udpTimeoutSeconds}`)
      await this.#hosts.set(
        router,
        'net/netfilter/nf_conntrack_udp_timeout_stream',
        `${udpStreamTimeoutSeconds}`,
      )
      const innermost = depth === chain.length - 1
      const inner = innermost ? `192.168.${net}.2` : `100.64.${net}.${10 + depth}`
      await this.#nft(router, ruleset(type, inner, wan))
      outer = { host: router, device: 'inside', address: `100.64.${net}.1`, inner }
    }
    const [router] = state.routers.slice(-1)
    if (router === undefined) {
      await this.#hosts.add(name)
      await this.#hosts.link(['net', `to-${net}`, `${PUBLIC}.${net}.1/24`], [name, 'eth0', `${state.wan}/24`])
      await this.#hosts.ip(name, [`route add default via ${PUBLIC}.${net}.1`])
      return
    }
    await this.#hosts.ip(router, [
      'link add lan type bridge',
      'link set lan up',
      `addr add 192.168.${net}.1/24 dev lan`,
    ])
    for (const [k, host] of [name, `${name}2`].entries()) {
      await this.#hosts.add(host)
      await this.#hosts.link([router, `lan${k}`], [host, 'eth0', `192.168.${net}.${2 + k}/24`])
      await this.#hosts.ip(router, [`link set lan${k} master lan`])
      await this.#hosts.ip(host, [`route add default via 192.168.${net}.1`])
    }
  }

  /** Sends all that crosses `net` through a device that holds it back. */
  async #delay(delayMs: number): Promise<void> {
    const program = fileURLToPath(new URL('delay-line.ts', import.meta.url))
    const line = this.exec('net', [process.execPath, program, DELAY_DEVICE, `${delayMs}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    await Promise.race([
      once(line.stdout as NonNullable<typeof line.stdout>, 'data'),
      once(line, 'exit').then(() => Promise.reject(new Error('the delay line ended'))),
    ])
    await this.#hosts.ip('net', [
      `link set ${DELAY_DEVICE} txqueuelen 10000 up`,
      `route add default dev ${DELAY_DEVICE} table 77`,
      ...[RELAY_NET, ...[...this.#sites.values()].map(({ net }) => net)].map(
        (net) => `rule add iif to-${net} lookup 77 priority 100`,
      ),
    ])
    // What comes out of the device has a source that the way back to would not lead to it.
    await this.#hosts.set('net', 'net/ipv4/conf/all/rp_filter', '0')
    await this.#hosts.set('net', `net/ipv4/conf/${DELAY_DEVICE}/rp_filter`, '0')
  }

  async #filter(): Promise<void> {
    const range = (site: string) => `${PUBLIC}.${site === 'relay' ? RELAY_NET : this.#site(site).net}.0/24`
    const between = (one: string, other: string) => [
      `ip saddr ${range(one)} ip daddr ${range(other)} drop`,
      `ip saddr ${range(other)} ip daddr ${range(one)} drop`,
    ]
    const rules = [...this.#cuts].flatMap((pair) => between(...(pair.split(' ') as [string, string])))
    for (const [site, what] of this.#blocks) {
      if (what === 'relay') rules.push(...between(site, 'relay'))
      else {
        const protocol = what === 'all' ? '' : `meta l4proto ${what}`
        rules.push(`ip saddr ${range(site)} ${protocol} drop`, `ip daddr ${range(site)} ${protocol} drop`)
      }
    }
    const added = rules.map((rule) => `add rule ip lab transit ${rule}\n`)
    await this.#nft('net', `flush chain ip lab transit\n${added.join('')}`)
  }

  async #nft(host: string, rules: string): Promise<void> {
    await this.run(host, ['nft', '-f', '-'], rules)
  }

  #site(name: string): SiteState {
    const site = this.#sites.get(name)
    if (site === undefined) throw new Error(`no site ${name} in this laboratory`)
    return site
  }
}

/** A router's rules. `inner` is whom it lets in what comes unasked, where it does. */
function ruleset(type: Exclude<NatType, 'public'>, inner: string, wan: 'drop' | 'reject' | 'accept'): string {
  const unasked = {
    drop: 'iifname "wan" ct state new drop',
    reject:
      'iifname "wan" ct state new meta l4proto tcp reject with tcp reset\n  iifname "wan" ct state new reject',
    accept: '',
  }[wan]
  const { set = '', pre = '', post = '', forward = '' } = particulars(type, inner)
  return `table ip nat {
 ${set}
 chain pre { type nat hook prerouting priority -100;
  ${pre}
 }
 chain post { type nat hook postrouting priority 100;
  ${post}
  oifname "wan" masquerade ${type === 'symmetric' ? 'fully-random' : ''}
 }
}
table ip filter {
 chain input { type filter hook input priority 0; policy accept;
  ${unasked}
 }
 chain forward { type filter hook forward priority 0; policy accept;
  ${forward}
  iifname "wan" ct status dnat accept
  iifname "wan" ct state new drop
 }
}
`
}

function particulars(
  type: Exclude<NatType, 'public'>,
  inner: string,
): { set?: string; pre?: string; post?: string; forward?: string } {
  switch (type) {
    case 'fullcone':
      return { pre: `iifname "wan" dnat to ${inner}` }
    case 'addrrestricted':
      // Remembers whom each port has talked to, and lets those in from any of their ports.
      return {
        set: 'set talked { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 5m; }',
        post: 'oifname "wan" add @talked { ip daddr . th sport }',
        pre: `iifname "wan" ip saddr . th dport @talked dnat to ${inner}`,
      }
    case 'udpblocked':
      return { forward: 'oifname "wan" meta l4proto udp drop' }
    case 'webonly':
      return {
        forward: 'oifname "wan" ct state new tcp dport { 80, 443 } accept\n  oifname "wan" ct state new drop',
      }
    case 'portrestricted':
    case 'symmetric':
      return {}
  }
}
