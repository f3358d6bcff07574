import { getDescription } from 'valibot'
import { fileSchema } from './file-schema.ts'
import { KEY_EXAMPLES } from './key-examples.ts'

/** A key of farport.yaml, for a manual. */
export interface DescribedKey {
  /** `ports.NAME.device`, `links[].pty`. */
  readonly key: string
  readonly text: string
  readonly mayBeLeftOut: boolean
  /** A value as it would stand in the file. */
  readonly example?: string
}

/** What of a valibot schema leads to further keys. */
interface Node {
  readonly entries?: Readonly<Record<string, Node>>
  readonly wrapped?: Node
  readonly item?: Node
  readonly value?: Node
  readonly pipe?: readonly Node[]
}

/** All keys of farport.yaml in the order of the schema, a group before what is in it. */
export function describedKeys(): DescribedKey[] {
  return [...walk(fileSchema as unknown as Node, '')]
}

function* walk(node: Node, at: string): Generator<DescribedKey> {
  const { entries = {}, item, value } = insideOf(node)
  for (const [name, entry] of Object.entries(entries)) {
    const key = at === '' ? name : `${at}.${name}`
    const inner = entry.wrapped ?? entry
    const text = getDescription(inner as unknown as Parameters<typeof getDescription>[0]) ?? ''
    const example = KEY_EXAMPLES[key.replace(/^defaults\./, 'ports.NAME.')]
    yield { key, text, mayBeLeftOut: entry.wrapped !== undefined, ...(example && { example }) }
    yield* walk(inner, key)
  }
  if (item !== undefined) yield* walk(item, `${at}[]`)
  if (value !== undefined) yield* walk(value, `${at}.NAME`)
}

/** The step of a pipe that has keys inside; pipes are in pipes, and each begins with what it is made of. */
function insideOf(node: Node): Node {
  const steps = node.pipe?.filter((step) => step !== node) ?? []
  return [node, ...steps.map(insideOf)].find(hasInside) ?? node
}

function hasInside({ entries, item, value }: Node): boolean {
  return entries !== undefined || item !== undefined || typeof value === 'object'
}
