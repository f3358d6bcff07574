import * as v from 'valibot'
import { FarportError } from '../errors.ts'
import { describedKeys } from './describe-keys.ts'
import { type PortOptions, portOptionsSchema } from './file-schema.ts'

/** One that a port may be told, in the words of farport.yaml: `line`, `pack`. */
export interface ShareOption {
  readonly name: string
  readonly text: string
  /** Of a group: `gap`, `size`. Its value is `gap=2ms,size=256`, or each is said alone, as `pack.gap`. */
  readonly parts: readonly string[]
}

const DEFAULTS = 'defaults.'
const YES_OR_NO: Readonly<Record<string, boolean>> = { on: true, true: true, off: false, false: false }

export function shareOptions(): ShareOption[] {
  const keys = describedKeys()
    .filter(({ key }) => key.startsWith(DEFAULTS))
    .map(({ key, text }) => ({ name: key.slice(DEFAULTS.length), text }))
  return keys
    .filter(({ name }) => !name.includes('.'))
    .map(({ name, text }) => ({
      ...{ name, text },
      parts: keys.flatMap((key) =>
        key.name.startsWith(`${name}.`) ? [key.name.slice(name.length + 1)] : [],
      ),
    }))
}

/**
 * What is said of a shared port on the command line, besides its device and name.
 * @param said such as `['line', '19200-8E1']`, `['pack.gap', '2ms']` or `['on-open', 'dtr=off,rts=on']`
 * @param write how a name is written there, for messages: `--line`, or `line=`
 * @throws FarportError ERR_USAGE that names the option and what would be right
 */
export function parseShareOptions(
  said: readonly (readonly [name: string, value: string])[],
  write: (name: string) => string,
): PortOptions {
  const known = shareOptions()
  const options = new Map<string, string | Map<string, string>>()
  const fail = (name: string, wrong: string): never => {
    throw new FarportError('ERR_USAGE', `${write(name)} ${wrong}`)
  }
  const put = (into: Map<string, unknown>, key: string, value: unknown, name: string) => {
    if (into.has(key)) fail(name, 'is said twice: once is right')
    into.set(key, value)
  }
  for (const [name, value] of said) {
    const [key = '', part, ...deeper] = name.split('.')
    const option = known.find((candidate) => candidate.name === key)
    if (option === undefined || deeper.length > 0 || (part !== undefined && !option.parts.includes(part)))
      throw new FarportError(
        'ERR_USAGE',
        `“${name}” is no option of a shared port: there are ${known.flatMap(namesOf).join(', ')}`,
      )
    if (option.parts.length === 0) {
      put(options, key, value, name)
      continue
    }
    const group = options.get(key) ?? new Map<string, string>()
    if (typeof group === 'string') continue
    options.set(key, group)
    if (part !== undefined) put(group, part, value, name)
    else
      for (const word of value.split(',')) {
        const [, own = '', ownValue = ''] = /^([^=]*)=(.*)$/s.exec(word) ?? []
        if (!option.parts.includes(own))
          fail(name, `is something like ${option.parts[0]}=…: there are ${option.parts.join(', ')}`)
        put(group, own, ownValue, `${name}.${own}`)
      }
  }
  const plain = Object.fromEntries(
    [...options].map(([key, value]) => [key, typeof value === 'string' ? value : Object.fromEntries(value)]),
  )
  const read = v.safeParse(portOptionsSchema, withTypes(plain))
  if (read.success) return read.output
  const [issue] = read.issues
  return fail((issue.path ?? []).map(({ key }) => key).join('.'), issue.message)
}

function namesOf({ name, parts }: ShareOption): string[] {
  return parts.length === 0 ? [`${name}=`] : parts.map((part) => `${name}.${part}=`)
}

/** YAML would have made numbers and booleans of some words; here the schema says of which. */
function withTypes(plain: Record<string, unknown>): Record<string, unknown> {
  const read = v.safeParse(portOptionsSchema, plain)
  for (const { expected, path = [] } of read.success ? [] : read.issues) {
    const at = path.at(-1) as { input: Record<string, unknown>; key: string; value: unknown } | undefined
    if (at === undefined || typeof at.value !== 'string') continue
    if (expected === 'boolean') at.input[at.key] = YES_OR_NO[at.value] ?? at.value
    if (expected === 'number' && /^\d+$/.test(at.value)) at.input[at.key] = Number(at.value)
  }
  return plain
}
