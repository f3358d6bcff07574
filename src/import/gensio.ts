/** One layer of a gensio: `telnet(rfc2217)`. */
interface GensioLayer {
  readonly name: string
  readonly options: readonly string[]
}

/** A stack as ser2net and gensio write it, `telnet(rfc2217),tcp,localhost,2000`: filters, then what they end on. */
export interface Gensio {
  readonly filters: readonly GensioLayer[]
  readonly end: GensioLayer
  /** What follows the end: addresses and options. */
  readonly args: readonly string[]
}

const FILTERS = new Set([
  'telnet',
  'ssl',
  'mux',
  'certauth',
  'msgdelim',
  'relpkt',
  'ratelimit',
  'trace',
  'perf',
  'cm108gpio',
  'keepopen',
  'script',
  'xlt',
  'kiss',
  'ax25',
  'mdns',
])
const MAX_LAYERS = 16

/** Undefined for what is no gensio. */
export function parseGensio(text: string): Gensio | undefined {
  const filters: GensioLayer[] = []
  const parts = splitOutside(text, ',')
  for (;;) {
    const part = parts.shift()?.trim()
    if (part === undefined || part === '') return undefined
    // Just a number is a TCP port.
    if (/^\d+$/.test(part)) return { filters, end: { name: 'tcp', options: [] }, args: [part] }
    const layer = parseLayer(part)
    if (layer === undefined) return undefined
    if (!FILTERS.has(layer.name))
      return {
        filters,
        end: layer,
        args: parts
          .flatMap((arg) => splitOutside(arg, ' '))
          .filter(Boolean)
          .map(unquote),
      }
    filters.push(layer)
    if (filters.length > MAX_LAYERS) return undefined
  }
}

function parseLayer(text: string): GensioLayer | undefined {
  const [, name, inside] = /^([A-Za-z_][A-Za-z0-9_-]*)\s*(?:\(([\s\S]*)\))?$/.exec(text) ?? []
  if (name === undefined) return undefined
  const options =
    inside === undefined ? [] : splitOutside(inside, ',').map((option) => unquote(option.trim()))
  return { name: name.toLowerCase(), options: options.filter(Boolean) }
}

/** Splits where the mark stands outside of quotes and parentheses, and not behind a backslash. Space: any white space. */
export function splitOutside(text: string, mark: ',' | ' '): string[] {
  const parts: string[] = []
  let depth = 0
  let quote = ''
  let begin = 0
  for (let at = 0; at < text.length; at++) {
    const c = text[at] as string
    if (c === '\\') at++
    else if (quote !== '') quote = c === quote ? '' : quote
    else if (c === '"' || c === "'") quote = c
    else if (c === '(') depth++
    else if (c === ')') depth = Math.max(0, depth - 1)
    else if (depth === 0 && (c === mark || (mark === ' ' && /\s/.test(c)))) {
      parts.push(text.slice(begin, at))
      begin = at + 1
    }
  }
  parts.push(text.slice(begin))
  return parts
}

function unquote(text: string): string {
  return text.replace(/^(["'])([\s\S]*)\1$/, '$2')
}
