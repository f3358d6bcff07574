import { splitOutside } from './gensio.ts'

const PROGRAMS = ['socat', 'com2tcp-rfc2217', 'com2tcp', 'hub4com'] as const
type Program = (typeof PROGRAMS)[number]

export interface CommandLine {
  readonly line: number
  readonly program: Program
  /** What follows the program's name. */
  readonly words: readonly string[]
  readonly text: string
}

/** Longer than a shell lets anyone write; also the least that makes a splitter slow. */
const MAX_LINE = 16_384

/** The program that a line calls, wherever in it: in a script, a unit file, a batch file. */
const CALL = /(?:^|[\s=@"'/\\(!+-])(socat|com2tcp-rfc2217|com2tcp|hub4com)(?:\.exe|\.bat)?["']?(?:\s+|$)/i

export function isCommandLine(line: string): boolean {
  return !isRemark(line) && CALL.test(line.slice(0, MAX_LINE))
}

/** Lines of a script, those that end with a backslash (or ^, in a batch file) put together. */
export function* commandLines(text: string): Generator<CommandLine | { line: number; text: string }> {
  let begun: { line: number; text: string } | undefined
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    if (begun === undefined && isRemark(raw)) continue
    const goesOn = /(^|\s)[\\^]\s*$/.test(raw)
    const part = goesOn ? raw.replace(/[\\^]\s*$/, ' ') : raw
    if (begun === undefined) begun = { line: index + 1, text: part }
    else if (begun.text.length <= MAX_LINE) begun.text += part
    if (goesOn) continue
    yield commandOf(begun)
    begun = undefined
  }
  if (begun !== undefined) yield commandOf(begun)
}

function commandOf({
  line,
  text,
}: {
  line: number
  text: string
}): CommandLine | { line: number; text: string } {
  const short = text.slice(0, MAX_LINE)
  const call = CALL.exec(short)
  if (call === null) return { line, text: short.trim() }
  const program = (call[1] as string).toLowerCase() as Program
  const rest = short.slice(call.index + call[0].length)
  // What the shell does with it afterwards is no part of it.
  const words: string[] = []
  for (const word of splitOutside(rest.replaceAll('\\', '\\\\'), ' ')) {
    if (word === '') continue
    if (/^(;|&|\||\d?>|<)/.test(word)) break
    words.push(plain(word.replaceAll('\\\\', '\\').replace(/[;&]+$/, '')))
    if (/[;&]$/.test(word)) break
  }
  return { line, program, words, text: `${program} ${words.join(' ')}` }
}

/** Without the quotes that keep a word together. */
function plain(word: string): string {
  return word.replace(/"([^"]*)"|'([^']*)'/g, '$1$2')
}

function isRemark(line: string): boolean {
  return /^\s*(#|;|::|rem\s|@?echo\s|@?setlocal|\[[A-Za-z]+\]\s*$|$)/i.test(line)
}
