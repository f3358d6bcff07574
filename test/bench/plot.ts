/** Plots as SVG, legible on light and on dark pages; no more than what docs/performance.md needs. */

const WIDTH = 720
const LEFT = 70
const RIGHT = 190
const TOP = 56
const BOTTOM = 46
const COLOURS = ['#2a7de1', '#e1782a', '#2aa876', '#a64ac9', '#c9334a', '#8a8a8a']

export interface Series {
  readonly name: string
  readonly points: readonly { readonly x: number; readonly y: number }[]
}

interface Axis {
  readonly label: string
  readonly log?: boolean
}

/** Curves over one axis of counts. */
export function curves(title: string, x: Axis, y: Axis, series: readonly Series[], height = 300): string {
  const all = series.flatMap(({ points }) => points)
  const up = scale(
    all.map((point) => point.y),
    y.log === true,
    height - BOTTOM,
    TOP,
  )
  const xs = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b)
  const across = { at: between(xs, x.log === true) }
  const labels = spread(series.map(({ points }) => up.at(points.at(-1)?.y ?? 0)))
  const parts = [
    ...up.ticks.map((tick) => gridLine(up.at(tick), text(tick))),
    ...xs.map((tick) => label(across.at(tick), height - BOTTOM + 18, text(tick), 'middle')),
    label((LEFT + WIDTH - RIGHT) / 2, height - 8, x.label, 'middle'),
    label(LEFT - 50, TOP - 16, y.label, 'start'),
    ...series.flatMap(({ name, points }, i) => {
      const colour = COLOURS[i % COLOURS.length]
      const path = points.map((point) => `${round(across.at(point.x))},${round(up.at(point.y))}`)
      return [
        `<polyline points="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/>`,
        ...path.map(
          (at) => `<circle cx="${at.split(',')[0]}" cy="${at.split(',')[1]}" r="3" fill="${colour}"/>`,
        ),
        label(WIDTH - RIGHT + 10, (labels[i] ?? 0) + 4, name, 'start', colour),
      ]
    }),
  ]
  return svg(title, height, parts)
}

/** One bar for each name, two shades of it: the median, and behind it how long one in a hundred takes. */
export function bars(
  title: string,
  unit: string,
  rows: readonly { name: string; p50: number; p99: number }[],
): string {
  const rowHeight = 30
  const height = TOP + rows.length * rowHeight + BOTTOM
  const left = 250
  const across = scale(
    rows.flatMap(({ p50, p99 }) => [p50, p99]),
    true,
    left,
    WIDTH - 90,
  )
  const parts = rows.flatMap(({ name, p50, p99 }, i) => {
    const y = TOP + i * rowHeight
    const colour = COLOURS[name.startsWith('farport') ? 0 : 5]
    const width = (value: number) => round(Math.max(2, across.at(value) - left))
    return [
      label(left - 8, y + 17, name, 'end'),
      `<rect x="${left}" y="${y + 4}" width="${width(p99)}" height="18" fill="${colour}" opacity="0.35"/>`,
      `<rect x="${left}" y="${y + 4}" width="${width(p50)}" height="18" fill="${colour}"/>`,
      label(round(across.at(p99)) + 6, y + 17, `${text(p50)} · ${text(p99)}`, 'start'),
    ]
  })
  const foot = across.ticks.map((tick) => label(across.at(tick), height - BOTTOM + 18, text(tick), 'middle'))
  return svg(title, height, [
    ...parts,
    ...foot,
    label(left, height - 8, `${unit}, logarithmic: median · one in a hundred`, 'start'),
  ])
}

function svg(title: string, height: number, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" role="img" aria-label="${escaped(title)}">
<style>text{fill:#24292f}line{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#d0d7de}}</style>
${label(LEFT - 50, 18, title, 'start', undefined, 'bold')}
${parts.join('\n')}
</svg>
`
}

function gridLine(y: number, name: string): string {
  return `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${round(y)}" y2="${round(y)}"/>\n${label(LEFT - 6, y + 4, name, 'end')}`
}

function label(
  x: number,
  y: number,
  content: string,
  anchor: string,
  colour?: string,
  weight = 'normal',
): string {
  const style = colour === undefined ? '' : ` style="fill:${colour}"`
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}" font-weight="${weight}"${style}>${escaped(content)}</text>`
}

/** From counts to places, the first at the left edge and the last at the right. */
function between(counts: readonly number[], log: boolean): (count: number) => number {
  const on = (count: number) => (log ? Math.log10(count) : count)
  const [first, last] = [on(counts[0] ?? 1), on(counts.at(-1) ?? 1)]
  return (count) => LEFT + ((WIDTH - RIGHT - LEFT) * (on(count) - first)) / (last - first || 1)
}

/** From values to places, and where marks belong. */
function scale(
  values: readonly number[],
  log: boolean,
  from: number,
  to: number,
): { at(value: number): number; ticks: number[] } {
  const high = Math.max(...values)
  if (!log) {
    const step = niceStep(high / 4)
    const top = Math.ceil(high / step) * step
    const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step)
    return { at: (value) => from + ((to - from) * value) / top, ticks }
  }
  const lowest = Math.floor(Math.log10(Math.max(1e-3, Math.min(...values))))
  const highest = Math.max(lowest + 1, Math.ceil(Math.log10(high)))
  const ticks = Array.from({ length: highest - lowest + 1 }, (_, i) => 10 ** (lowest + i))
  return {
    at: (value) =>
      from + ((to - from) * (Math.log10(Math.max(value, 10 ** lowest)) - lowest)) / (highest - lowest),
    ticks,
  }
}

/** Labels that would lie upon each other are moved apart. */
function spread(places: readonly number[]): number[] {
  const order = places.map((_, i) => i).sort((a, b) => (places[a] ?? 0) - (places[b] ?? 0))
  const moved = [...places]
  for (const [rank, i] of order.entries()) {
    const above = order[rank - 1]
    if (above !== undefined) moved[i] = Math.max(moved[i] ?? 0, (moved[above] ?? 0) + 15)
  }
  return moved
}

function niceStep(atLeast: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(atLeast, 1e-9)))
  return (([1, 2, 5, 10].find((factor) => factor * power >= atLeast) ?? 10) as number) * power
}

function text(value: number): string {
  return value >= 1000
    ? value.toLocaleString('en-US', { maximumFractionDigits: 0 })
    : String(Number(value.toPrecision(3)))
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
