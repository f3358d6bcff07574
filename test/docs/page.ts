import { readFileSync } from 'node:fs'

/**
 * A page and what a test does with each of its blocks. Readers don't see the markers, which are HTML comments on the line
 * before a fence:
 *
 *     on MACHINE                        run there to its end, which is to be exit code 0
 *     on MACHINE, ends with N           the same, with another exit code
 *     on MACHINE, stays                 run in a terminal of its own, until the page ends
 *     on MACHINE, each until REGEXP     each line is run until it has printed that, and then interrupted
 *     on MACHINE[, stays], types REGEXP run with what matches of all output so far as its standard input, each match once
 *     file on MACHINE: PATH             the block is put into a file in that machine's HOME
 *     is a farport.yaml                 `farport config check` has nothing to say about it
 *     shows                             the block before this one has printed these lines, in this order; `…` is anything,
 *                                       milliseconds are any number of them, and a time is any time
 *     not run: REASON                   neither
 *
 * A block that readers have no use for stands with its marker inside of the comment. Anywhere in a page:
 *
 *     not run from here: REASON         the same for what has no marker of its own, to the end of the page
 *     in the test: THIS => THAT         what stands for THIS on the test's machine
 *     needs: PROGRAM                    one that not every machine has
 *     paired: GUEST with HOST, WHAT     the one takes up the invite that WHAT says, ports or `--may relay`, of the other
 *     inline: COMMAND on MACHINE until REGEXP
 *                                       from here to the next heading, what begins with COMMAND between backticks is run
 *                                       until it has printed that, and then interrupted
 */
export interface Page {
  readonly blocks: readonly Block[]
  readonly standIns: readonly (readonly [what: string, by: string])[]
  readonly needs: readonly string[]
}

export interface Block {
  readonly line: number
  readonly text: string
  readonly does: Does
}

export type Does =
  | {
      readonly kind: 'run'
      readonly machine: string
      readonly exitCode: number
      readonly types: RegExp | undefined
    }
  | { readonly kind: 'stay'; readonly machine: string; readonly types: RegExp | undefined }
  | { readonly kind: 'until'; readonly machine: string; readonly printed: RegExp }
  | { readonly kind: 'file'; readonly machine: string; readonly path: string }
  | { readonly kind: 'config' }
  | { readonly kind: 'paired'; readonly guest: string; readonly host: string }
  | { readonly kind: 'shows' }
  | { readonly kind: 'not run'; readonly reason: string }
  | { readonly kind: 'unmarked' }

/** What can be typed, what comes of it, and what goes into files. Pictures and protocols are blocks of `text`. */
const MARKED = ['', 'sh', 'ts', 'yaml']

interface Inline {
  readonly command: string
  readonly does: Does
}

/** @throws when a marker can't be read, or stands before no block */
export function readPage(path: string): Page {
  return parsePage(readFileSync(path, 'utf8'), path)
}

/** @throws as readPage, which names `path` */
export function parsePage(text: string, path: string): Page {
  const blocks: Block[] = []
  const standIns: [string, string][] = []
  const needs: string[] = []
  let inline: Inline[] = []
  let standing: Does = { kind: 'unmarked' }
  let marker: Does | undefined
  let isHidden = false
  let fence: { line: number; language: string; text: string[] } | undefined

  for (const [index, line] of text.split('\n').entries()) {
    const where = `${path}:${index + 1}`
    const [, language] = /^```(.*)$/.exec(line) ?? []
    const [, comment, end] = /^<!-- (.*?)( -->)?$/.exec(line) ?? []
    if (fence !== undefined) {
      if (language === undefined) fence.text.push(line)
      else {
        const does = marker ?? (MARKED.includes(fence.language) ? standing : undefined)
        if (does !== undefined) blocks.push({ line: fence.line, text: fence.text.join('\n'), does })
        fence = marker = undefined
      }
    } else if (language !== undefined) {
      fence = { line: index + 1, language, text: [] }
    } else if (isHidden && line === '-->') {
      isHidden = false
    } else if (comment !== undefined) {
      if (marker !== undefined) throw new Error(`${where}: the marker before this one stands before no block`)
      isHidden = end === undefined
      const [, what, by] = /^in the test: (.+) => (.+)$/.exec(comment) ?? []
      const [, reason] = /^not run from here: (.+)$/.exec(comment) ?? []
      const [, program] = /^needs: (\S+)$/.exec(comment) ?? []
      const [, guest, host, granted] = /^paired: (\w+) with (\w+), (.+)$/.exec(comment) ?? []
      const [, command, machine, printed] = /^inline: (.+) on (\w+) until (.+)$/.exec(comment) ?? []
      if (what !== undefined && by !== undefined) standIns.push([what, by])
      else if (program !== undefined) needs.push(program)
      else if (reason !== undefined) standing = { kind: 'not run', reason }
      else if (guest !== undefined && host !== undefined && granted !== undefined)
        blocks.push({ line: index + 1, text: granted, does: { kind: 'paired', guest, host } })
      else if (command !== undefined && machine !== undefined && printed !== undefined)
        inline.push({ command, does: { kind: 'until', machine, printed: new RegExp(printed) } })
      else marker = parseMarker(comment, where)
    } else if (marker !== undefined) {
      throw new Error(`${path}:${index}: a marker stands before no block`)
    } else if (line.startsWith('#')) {
      inline = []
    } else {
      for (const code of inlineCode(line)) {
        const found = inline.find(({ command }) => `${code} `.startsWith(`${command} `))
        if (found !== undefined) blocks.push({ line: index + 1, text: code, does: found.does })
      }
    }
  }
  if (marker !== undefined || fence !== undefined || isHidden)
    throw new Error(`${path}: it ends inside of a block, or behind a marker that stands before none`)
  return { blocks, standIns, needs }
}

/** What stands between backticks. */
export function inlineCode(line: string): string[] {
  return [...line.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string)
}

function parseMarker(comment: string, where: string): Does {
  if (comment === 'shows') return { kind: 'shows' }
  if (comment === 'is a farport.yaml') return { kind: 'config' }
  const [, reason] = /^not run: (.+)$/.exec(comment) ?? []
  if (reason !== undefined) return { kind: 'not run', reason }
  const [, owner, path] = /^file on (\w+): (.+)$/.exec(comment) ?? []
  if (owner !== undefined && path !== undefined) return { kind: 'file', machine: owner, path }
  const [, machine, stays, typed, printed, exitCode] =
    /^on (\w+)(?:(, stays)?(?:, types (.+))?|, each until (.+)|, ends with (\d+))$/.exec(comment) ?? []
  if (machine === undefined) throw new Error(`${where}: no marker: ${comment}`)
  if (printed !== undefined) return { kind: 'until', machine, printed: new RegExp(printed) }
  const types = typed === undefined ? undefined : new RegExp(typed)
  if (stays !== undefined) return { kind: 'stay', machine, types }
  return { kind: 'run', machine, exitCode: Number(exitCode ?? 0), types }
}
