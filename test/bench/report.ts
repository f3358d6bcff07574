import { readFile, writeFile } from 'node:fs/promises'
import { cpus, release, totalmem } from 'node:os'
import type { Measured } from './part.ts'
import { bars, curves, type Series } from './plot.ts'

const docs = new URL('../../docs/', import.meta.url)
const RESULTS = new URL('performance.json', docs)
const PAGE = new URL('performance.md', docs)

/** A point of a curve: how many, and figures with their units in their names. */
export type GrowthPoint = { readonly count: number } & Readonly<Record<string, number>>

interface Results {
  /** What `npm run bench` has found, by its parts. */
  readonly bench?: Readonly<Record<string, Measured & { when: string; machine: string }>>
  /** And `npm run bench:growth`, by its series. */
  readonly growth?: Readonly<Record<string, readonly GrowthPoint[]>>
}

/** Keeps what was measured beside what is there already, and writes the page and its plots anew. */
export async function keep(found: {
  bench?: ReadonlyMap<string, Measured>
  growth?: Readonly<Record<string, readonly GrowthPoint[]>>
}): Promise<void> {
  const before = JSON.parse(await readFile(RESULTS, 'utf8').catch(() => '{}')) as Results
  const of = { when: new Date().toISOString().slice(0, 10), machine: machine() }
  const bench = [...(found.bench ?? [])].map(([name, part]) => [name, { ...part, ...of }] as const)
  const results: Results = {
    bench: { ...before.bench, ...Object.fromEntries(bench) },
    growth: { ...before.growth, ...found.growth },
  }
  await writeFile(RESULTS, `${JSON.stringify(results, undefined, 2)}\n`)
  let page = await readFile(PAGE, 'utf8')
  for (const [name, content] of Object.entries(contents(results)))
    page = page.replace(
      new RegExp(`(\\[//\\]: # \\(measured: ${name}\\)\n)[^]*?(\\[//\\]: # \\(so much for it\\))`),
      (_, from: string, to: string) => `${from}\n${content}\n\n${to}`,
    )
  await writeFile(PAGE, page)
  for (const [name, image] of Object.entries(plots(results))) await writeFile(new URL(name, docs), image)
}

/** What stands between the markers of the page. */
function contents({ bench = {}, growth = {} }: Results): Record<string, string> {
  const parts = Object.values(bench)
  const [first] = parts
  return {
    machine: first === undefined ? '' : `Measured ${first.when} on ${first.machine}.`,
    bars: table(
      ['what', 'figure', 'bar', ''],
      parts.flatMap(({ bars: all }) =>
        all.map(({ figure, value, unit, bar, reached }) => [
          figure,
          `${value} ${unit}`,
          bar,
          reached ? 'reached' : '**not reached**',
        ]),
      ),
    ),
    ...Object.fromEntries(
      Object.entries(bench).map(([name, { lines }]) => [name, ['```text', ...lines, '```'].join('\n')]),
    ),
    ...(bench.plain && { plain: plainTable(bench.plain.results as readonly PlainResult[]) }),
    ...Object.fromEntries(
      Object.entries(growth).map(([name, points]) => [
        `growth ${name}`,
        table(
          Object.keys(points[0] ?? {}),
          points.map((point) => Object.values(point).map(String)),
        ),
      ]),
    ),
  }
}

interface PlainResult {
  readonly title: string
  readonly workload: string
  readonly figure: string
  readonly unit: string
  readonly median: number
}

/** A row for each stack. */
function plainTable(results: readonly PlainResult[]): string {
  const columns = [...new Set(results.map(({ workload, figure, unit }) => `${workload} ${figure}, ${unit}`))]
  const rows = [...new Set(results.map(({ title }) => title))].map((title) => [
    title,
    ...columns.map((column) => {
      const it = results.find(
        (one) => one.title === title && `${one.workload} ${one.figure}, ${one.unit}` === column,
      )
      return String(it?.median ?? '')
    }),
  ])
  return table(['', ...columns], rows)
}

function plots({ bench = {}, growth = {} }: Results): Record<string, string> {
  const images: Record<string, string> = {}
  const plain = bench.plain?.results as
    | { stack: string; title: string; workload: string; figure: string; median: number }[]
    | undefined
  const rows = plain === undefined ? [] : roundTripRows(plain)
  if (rows.length > 0)
    images['performance-round-trip.svg'] = bars('One byte there and back', 'microseconds', rows)
  const { ports = [], peers = [], agents = [] } = growth
  if (ports.length > 1)
    images['performance-ports.svg'] = curves(
      'Ports of one agent, each with 480 bytes a second both ways',
      { label: 'ports', log: true },
      { label: 'percent of a core; MiB' },
      ['agent CPU, %', 'client CPU, %', 'agent RSS, MiB', 'client RSS, MiB'].map((name) =>
        seriesOf(ports, name),
      ),
    )
  if (peers.length > 1)
    images['performance-peers.svg'] = curves(
      'Peers of one agent, each with a port open',
      { label: 'peers', log: true },
      { label: 'MiB; ms; percent of a core' },
      ['agent RSS, MiB', 'agent CPU per connect, ms', 'agent CPU, %'].map((name) => seriesOf(peers, name)),
    )
  if (agents.length > 1)
    images['performance-agents.svg'] = curves(
      'Agents of one relay',
      { label: 'agents', log: true },
      { label: 'seconds; ms', log: true },
      ['all reserved after, s', 'all back after a kill, s', 'relay CPU per agent, ms'].map((name) =>
        seriesOf(agents, name),
      ),
    )
  return images
}

function roundTripRows(
  plain: readonly { title: string; workload: string; figure: string; median: number }[],
) {
  const of = (title: string, figure: string) =>
    plain.find((it) => it.title === title && it.workload === 'rtt1' && it.figure === figure)?.median
  return [...new Set(plain.map(({ title }) => title))].flatMap((name) => {
    const [p50, p99] = [of(name, 'p50'), of(name, 'p99')]
    return p50 === undefined || p99 === undefined ? [] : [{ name, p50, p99 }]
  })
}

function seriesOf(points: readonly GrowthPoint[], name: string): Series {
  return { name, points: points.map((point) => ({ x: point.count, y: point[name] ?? 0 })) }
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

function machine(): string {
  const [first] = cpus()
  const gib = Math.round(totalmem() / 2 ** 30)
  return `${cpus().length} virtual processors (${first?.model.trim()}), ${gib} GiB, Linux ${release().split('-')[0]}, Node ${process.versions.node}`
}
