import { readFileSync } from 'node:fs'

/**
 * A page and what a test does with each of its shell blocks. Readers don't see the markers, which are HTML comments on the
 * line before a fence:
 *
 *     on MACHINE                        run there to its end, which is to be exit code 0
 *     on MACHINE, ends with N           the same, with another exit code
 *     on MACHINE, stays                 run in a terminal of its own, until the page ends
 *     on MACHINE, each until REGEXP     each line is run until it has printed that, and then interrupted
 *     on MACHINE, types REGEXP          run with what matches of all output so far as its standard input
 *     file on MACHINE: PATH             the block is put into a file in that machine's HOME
 *     shows                             the block before this one has printed these lines, in this order; `…` is anything,
 *                                       and milliseconds are any number of them
 *     not run: REASON                   neither
 *     not run from here: REASON         the same for what has no marker of its own, to the end of the page
 *     in the test: THIS => THAT         anywhere: what stands for THIS on the test's machine
 *     needs: PROGRAM                    anywhere: one that not every machine has
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
  | { readonly kind: 'run'; readonly machine: string; readonly exitCode: number; readonly types?: RegExp }
  | { readonly kind: 'stay'; readonly machine: string }
  | { readonly kind: 'until'; readonly machine: string; readonly printed: RegExp }
  | { readonly kind: 'file'; readonly machine: string; readonly path: string }
  | { readonly kind: 'shows' }
  | { readonly kind: 'not run'; readonly reason: string }
  | { readonly kind: 'unmarked' }

/** Blocks of these languages can be typed into a shell, or are what comes of it. */
const SHELL = ['', 'sh']

/** @throws when a marker can't be read, or stands before no block */
export function readPage(path: string): Page {
  const blocks: Block[] = []
  const standIns: [string, string][] = []
  const needs: string[] = []
  let standing: Does = { kind: 'unmarked' }
  let marker: Does | undefined
  let fence: { line: number; language: string; text: string[] } | undefined

  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    const [, language] = /^```(.*)$/.exec(line) ?? []
    const [, comment] = /^<!-- (.*) -->$/.exec(line) ?? []
    if (fence !== undefined) {
      if (language === undefined) fence.text.push(line)
      else {
        const does = marker ?? (SHELL.includes(fence.language) ? standing : undefined)
        if (does !== undefined) blocks.push({ line: fence.line, text: fence.text.join('\n'), does })
        fence = marker = undefined
      }
    } else if (language !== undefined) {
      fence = { line: index + 1, language, text: [] }
    } else if (comment !== undefined) {
      const [, what, by] = /^in the test: (.+) => (.+)$/.exec(comment) ?? []
      const [, reason] = /^not run from here: (.+)$/.exec(comment) ?? []
      const [, program] = /^needs: (\S+)$/.exec(comment) ?? []
      if (what !== undefined && by !== undefined) standIns.push([what, by])
      else if (program !== undefined) needs.push(program)
      else if (reason !== undefined) standing = { kind: 'not run', reason }
      else marker = parseMarker(comment, `${path}:${index + 1}`)
    } else if (marker !== undefined) throw new Error(`${path}:${index}: a marker stands before no block`)
  }
  return { blocks, standIns, needs }
}

function parseMarker(comment: string, where: string): Does {
  if (comment === 'shows') return { kind: 'shows' }
  const [, reason] = /^not run: (.+)$/.exec(comment) ?? []
  if (reason !== undefined) return { kind: 'not run', reason }
  const [, owner, path] = /^file on (\w+): (.+)$/.exec(comment) ?? []
  if (owner !== undefined && path !== undefined) return { kind: 'file', machine: owner, path }
  const [, machine, how] = /^on (\w+)(?:, (.+))?$/.exec(comment) ?? []
  if (machine === undefined) throw new Error(`${where}: no marker: ${comment}`)
  if (how === undefined) return { kind: 'run', machine, exitCode: 0 }
  if (how === 'stays') return { kind: 'stay', machine }
  const [, printed] = /^each until (.+)$/.exec(how) ?? []
  if (printed !== undefined) return { kind: 'until', machine, printed: new RegExp(printed) }
  const [, exitCode] = /^ends with (\d+)$/.exec(how) ?? []
  if (exitCode !== undefined) return { kind: 'run', machine, exitCode: Number(exitCode) }
  const [, types] = /^types (.+)$/.exec(how) ?? []
  if (types !== undefined) return { kind: 'run', machine, exitCode: 0, types: new RegExp(types) }
  throw new Error(`${where}: no marker: ${comment}`)
}
