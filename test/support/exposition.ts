import assert from 'node:assert/strict'

/** One metric: its samples by their labels, `port="gps",direction="to_device"`; those of a histogram by their names, too. */
interface MetricFamily {
  readonly type: string
  readonly help: string
  readonly samples: ReadonlyMap<string, number>
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/
const LABELS = new RegExp(`^${LABEL.source}(?:,${LABEL.source})*$`)

/**
 * Reads Prometheus's text format, version 0.0.4, as strictly as it is written down: each metric once, with HELP and TYPE
 * before its samples, each sample once, nothing else.
 */
export function parseExposition(text: string): Map<string, MetricFamily> {
  const families = new Map<string, { type: string; help: string; samples: Map<string, number> }>()
  let help: { name: string; text: string } | undefined
  let current: string | undefined
  assert.ok(text.endsWith('\n'), 'the last line has its end')
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const [, keyword, about = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (keyword === 'HELP') {
      assert.match(about, NAME)
      assert.ok(rest.length > 0, `${about} has no help`)
      help = { name: about, text: rest }
      current = undefined
    } else if (keyword === 'TYPE') {
      assert.equal(help?.name, about, 'HELP comes before TYPE')
      assert.ok(!families.has(about), `${about} is there twice`)
      assert.match(rest, /^(counter|gauge|histogram|summary|untyped)$/)
      families.set(about, { type: rest, help: help?.text ?? '', samples: new Map() })
      current = about
    } else {
      const [, name = '', labels = '', value = ''] = /^([^{ ]+)(?:\{(.*)\})? (\S+)$/s.exec(line) ?? []
      const family = families.get(current ?? '')
      assert.ok(family !== undefined, `no metric for ${line}`)
      const suffix = family.type === 'histogram' ? /^(_bucket|_sum|_count)$/ : /^$/
      assert.match(name.slice(current?.length), suffix, line)
      assert.ok(name.startsWith(current as string), line)
      if (labels !== '') assert.match(labels, LABELS, line)
      const number = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value)
      // A float as Go's ParseFloat takes it, to which the letters' case is all one.
      assert.ok(value.toLowerCase() === 'nan' || !Number.isNaN(number), line)
      const key = family.type === 'histogram' ? `${name}{${labels}}` : labels
      assert.ok(!family.samples.has(key), `${line} is there twice`)
      family.samples.set(key, number)
    }
  }
  return families
}
