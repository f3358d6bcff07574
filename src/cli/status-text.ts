import { type DaemonStatus, summarize } from '../daemon/status.ts'
import { table } from './table.ts'

/** How a farport is, for a person; with how it was a little `before`, also how fast bytes come and go. */
export function drawStatus(status: DaemonStatus, before?: DaemonStatus): string {
  const { version, peerId, pid, uptimeMs, ports, links, relays, peers, metrics } = status
  const passedS = before?.pid === pid ? (uptimeMs - before.uptimeMs) / 1000 : 0
  const sums = (now: Sums, then: Sums | undefined) =>
    (['toDevice', 'fromDevice'] as const).map((direction) => {
      const sum = formatBytes(now[direction])
      const more = now[direction] - (then?.[direction] ?? Number.NaN)
      return passedS > 0 && more >= 0 ? `${sum}, ${formatBytes(more / passedS)}/s` : sum
    })
  const blocks = [
    `farport ${version}, ${peerId}, process ${pid}, up ${duration(uptimeMs)}: ${summarize(status)}\n`,
    ports.length > 0 &&
      table(
        ['port', 'state', 'held by', 'path', 'watching', 'to device', 'from device', 'device'],
        ports.map((port) => [
          ...[port.name, port.state, port.holder ?? '', way(port)],
          port.watchers > 0 ? `${port.watchers}` : '',
          ...sums(
            port,
            before?.ports.find(({ name }) => name === port.name),
          ),
          port.device,
        ]),
      ),
    links.length > 0 &&
      table(
        ['link', 'state', 'path', 'to device', 'from device', 'at', ''],
        links.map((link) => [
          ...[link.port, link.state, way(link)],
          ...sums(
            link,
            before?.links.find(({ port, at }) => port === link.port && at === link.at),
          ),
          ...[link.at, link.reason ?? ''],
        ]),
      ),
    peers.length > 0 &&
      table(
        ['peer', 'path', 'address'],
        peers.map((peer) => [peer.name, way(peer), peer.address]),
      ),
    relays.length > 0 &&
      table(
        ['relay', 'state', ''],
        relays.map(({ address, state, reason = '' }) => [address, state, reason]),
      ),
    metrics !== undefined &&
      table(
        ['metrics', ''],
        [[metrics.at, metrics.reason === undefined ? '' : `not there: ${metrics.reason}`]],
      ),
  ]
  return blocks.filter((block) => block !== false).join('\n')
}

type Sums = Pick<DaemonStatus['links'][number], 'toDevice' | 'fromDevice'>

/** `direct, 12 ms`: how far away, too, where that is known. */
function way({ path = '', roundTripMs }: { path?: string; roundTripMs?: number }): string {
  if (roundTripMs === undefined) return path
  return `${path}, ${roundTripMs < 10 ? roundTripMs.toFixed(1) : Math.round(roundTripMs)} ms`
}

/** As farport.yaml has them; three digits or so. */
function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let amount = bytes
  for (; amount >= 10_000 && unit < units.length - 1; unit++) amount /= 1024
  return `${amount < 10 && unit > 0 ? amount.toFixed(1) : Math.round(amount)} ${units[unit]}`
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min`
  return minutes < 48 * 60
    ? `${Math.floor(minutes / 60)} h ${minutes % 60} min`
    : `${Math.floor(minutes / 1440)} days`
}
