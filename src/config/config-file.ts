import * as v from 'valibot'
import { isMap, isScalar, LineCounter, type Node, type ParsedNode, parseDocument } from 'yaml'
import { FarportError } from '../errors.ts'
import { type ConfigFile, fileSchema } from './file-schema.ts'

/** Beyond this nobody has written it by hand. */
const MAX_FILE_BYTES = 1024 * 1024
/** Told at once, so that a file is mended in one go. */
const MAX_PROBLEMS = 20

/** Something in the file that can't be as it is. */
export interface ConfigProblem {
  /** From 1. */
  readonly line: number
  readonly column: number
  /** `ports.plc.line`; empty for the file as a whole. */
  readonly key: string
  /** Says what would be right. */
  readonly message: string
}

/** All that is wrong with a file, a line for each. */
export class ConfigError extends FarportError {
  readonly problems: readonly ConfigProblem[]

  constructor(path: string, problems: readonly ConfigProblem[]) {
    const told = problems.slice(0, MAX_PROBLEMS)
    const lines = told.map(
      ({ line, column, key, message }) =>
        `${path}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`,
    )
    if (problems.length > told.length) lines.push(`${path}: and ${problems.length - told.length} more`)
    super('ERR_USAGE', lines.join('\n'))
    this.problems = problems
  }
}

/**
 * What farport.yaml says.
 * @param path for messages
 * @throws ConfigError
 */
export function parseConfigFile(text: string, path: string): ConfigFile {
  if (Buffer.byteLength(text) > MAX_FILE_BYTES)
    throw new ConfigError(path, [{ line: 1, column: 1, key: '', message: 'larger than 1 MiB' }])
  const lines = new LineCounter()
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    // 7E1 is a line, not seventy.
    customTags: (tags) => tags.filter((tag) => typeof tag === 'string' || tag.format !== 'EXP'),
  })
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset)
    return { line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  if (document.errors.length > 0)
    throw new ConfigError(
      path,
      document.errors.map(({ pos, message }) => ({ ...at(pos[0]), key: '', message: firstLine(message) })),
    )
  let content: unknown
  try {
    content = document.toJS({ maxAliasCount: 100 }) ?? {}
  } catch (error) {
    throw new ConfigError(path, [{ line: 1, column: 1, key: '', message: (error as Error).message }])
  }
  const read = v.safeParse(fileSchema, content, { abortPipeEarly: true })
  if (read.success) return read.output
  const problems = read.issues.map((issue) => {
    const keys = (issue.path ?? []).map(({ key }) => key)
    const node = nodeAt(document.contents, keys)
    return { ...at(node?.range?.[0] ?? 0), key: keys.join('.'), message: issue.message }
  })
  problems.sort((a, b) => a.line - b.line || a.column - b.column)
  throw new ConfigError(path, problems)
}

/** The key where there is one, since that is what people look for; else the value. */
function nodeAt(root: ParsedNode | null, keys: readonly unknown[]): Node | undefined {
  let node: Node | null = root
  let found: Node | undefined = root ?? undefined
  for (const key of keys) {
    if (isMap(node)) {
      const pair: { key: unknown; value: unknown } | undefined = node.items.find(
        (item) => isScalar(item.key) && item.key.value === key,
      )
      if (pair === undefined) break
      found = pair.key as Node
      node = pair.value as Node | null
    } else {
      const next = (node as { get?: (key: unknown, keep: boolean) => unknown } | null)?.get?.(key, true)
      if (next === undefined) break
      node = next as Node
      found = node
    }
  }
  return found
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] as string
}
