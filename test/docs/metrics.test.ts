import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { parse } from 'yaml'
import { createMetrics } from '../../src/daemon/metrics.ts'
import { busy } from '../support/daemon-status.ts'
import { parseExposition } from '../support/exposition.ts'

const root = new URL('../..', import.meta.url).pathname
const page = await readFile(`${root}docs/metrics.md`, 'utf8')

/** Each metric there is, with its labels; those that Prometheus adds are every metric's. */
async function metrics(): Promise<Map<string, Set<string>>> {
  const { text } = await createMetrics({ status: async () => busy, peers: () => ['anna'] })()
  return new Map(
    [...parseExposition(text)].map(([name, { samples }]) => {
      const labels = [...samples.keys()].flatMap((key) =>
        [...key.matchAll(/(\w+)="/g)].map(([, label]) => label),
      )
      return [name, new Set(['job', 'instance', ...(labels as string[])])]
    }),
  )
}

/** What a query asks for: metrics, each with the labels it is selected by, and the labels that results are grouped by. */
function askedBy(query: string) {
  const selectors: { name: string; labels: string[] }[] = []
  const grouped: string[] = []
  let rest = query.replaceAll(/\[[^\]]*\]/g, '')
  const groups = /\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g
  for (const [, , labels = ''] of rest.matchAll(groups))
    grouped.push(...labels.split(',').map((one) => one.trim()))
  rest = rest.replaceAll(groups, ' ')
  for (const [, name = '', inside = ''] of rest.matchAll(/\b([a-zA-Z_]\w*)\b(?!\s*\()(?:\{([^}]*)\})?/g))
    selectors.push({
      name,
      labels: [...inside.matchAll(/(\w+)\s*[=!]/g)].map(([, label]) => label as string),
    })
  return {
    selectors: selectors.filter(({ name }) => !['and', 'or', 'unless', 'bool'].includes(name)),
    grouped,
  }
}

async function check(queries: readonly string[]): Promise<void> {
  const known = await metrics()
  known.set('up', new Set(['job', 'instance']))
  for (const query of queries) {
    // What stands in quotes is no name.
    const { selectors, grouped } = askedBy(query.replaceAll(/"[^"]*"/g, '""'))
    assert.ok(selectors.length > 0, query)
    for (const { name, labels } of selectors) {
      assert.ok(known.has(name), `${query}: there is no ${name}`)
      for (const label of labels) assert.ok(known.get(name)?.has(label), `${query}: ${name} has no ${label}`)
    }
    const all = new Set(selectors.flatMap(({ name }) => [...(known.get(name) ?? [])]))
    for (const label of grouped) assert.ok(all.has(label), `${query}: nothing has ${label}`)
  }
}

test('docs/metrics.md has every metric with its labels, and no other', async () => {
  const written = [...page.matchAll(/^\| `(farport_\w+)` \| ([^|]*) \|/gm)].map(([, name, labels]) => [
    name as string,
    (labels as string).trim().split(', ').sort(),
  ])
  const known = [...(await metrics())].filter(([name]) => name.startsWith('farport_'))
  assert.deepEqual(
    new Map(written as [string, string[]][]),
    new Map(
      known.map(([name, labels]) => [
        name,
        [...labels].filter((one) => !['job', 'instance'].includes(one)).sort(),
      ]),
    ),
  )
  for (const [, name] of page.matchAll(/`((?:process|nodejs)_\w+)`/g))
    assert.ok((await metrics()).has(name as string), name)
})

test('the alarms of docs/metrics.md ask for what there is', async () => {
  interface Rules {
    groups?: { rules: { alert: string; expr: string }[] }[]
  }
  const blocks = [...page.matchAll(/^```yaml\n(.*?)^```$/gms)].map(
    ([, yaml]) => parse(yaml as string) as Rules,
  )
  const rules = blocks.flatMap(({ groups = [] }) => groups).flatMap((group) => group.rules)
  assert.ok(rules.length >= 5)
  await check(rules.map(({ expr }) => expr))
})

test('the dashboard for Grafana asks for what there is', async () => {
  const text = await readFile(`${root}deploy/grafana/farport.json`, 'utf8')
  interface Panel {
    id: number
    title: string
    gridPos: { x: number; y: number; w: number; h: number }
    targets?: { expr: string; legendFormat: string }[]
  }
  const { panels } = JSON.parse(text) as { panels: Panel[] }
  const targets = panels.flatMap(({ targets: some = [] }) => some)
  assert.ok(targets.length >= 15)
  await check(targets.map(({ expr }) => expr))
  const known = new Set([...(await metrics()).values()].flatMap((labels) => [...labels]))
  for (const { legendFormat } of targets)
    for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
      assert.ok(known.has(label as string), label)
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
  for (const { title, gridPos } of panels) assert.ok(gridPos.x + gridPos.w <= 24, title)
  // All of ours are worth a look.
  const shown = new Set(
    targets.flatMap(({ expr }) => [...expr.matchAll(/farport_\w+/g)].map(([name]) => name)),
  )
  const ours = [...(await metrics()).keys()].filter((name) => name.startsWith('farport_'))
  assert.deepEqual(
    ours.filter((name) => !shown.has(name)),
    [],
  )
})
