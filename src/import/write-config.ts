import { stringify } from 'yaml'
import { printable } from '../printable.ts'
import type { Draft, Entry, Value } from './draft.ts'

/** Longer than anyone reads in a comment. */
const MAX_COMMENT = 300

/** The draft as text, each entry under a comment that says where it comes from. */
export function writeConfig({ ports, links }: Draft, name: string): string {
  const out = [`# Made by farport import from ${comment(name)}.`]
  if (ports.size + links.length === 0) out.push('# Nothing in it is a port to share or a way to one.')
  if (ports.size > 0) {
    out.push(
      '# Who may use these ports stands in trusted_peers: farport invite lets a machine in.',
      '',
      'ports:',
    )
    for (const [portName, entry] of ports)
      out.push(...comments(entry), indented({ [portName]: entry.settings }))
  }
  if (links.length > 0) {
    out.push(
      '',
      '# peer-at-… stands for what farport peers calls the machine that shares the port, and port-… for what',
      '# farport ports shows of it: put these names in, after farport pair.',
      'links:',
    )
    for (const entry of links) out.push(...comments(entry), indented([entry.settings]))
  }
  return `${out.join('\n')}\n`
}

function comments({ comments }: Entry): string[] {
  return comments.map((text) => `  # ${comment(text)}`)
}

/** In one line, whatever it is: nothing that was read may end a comment. */
function comment(text: string): string {
  const line = printable(text)
  return line.length > MAX_COMMENT ? `${line.slice(0, MAX_COMMENT)}…` : line
}

function indented(value: { [name: string]: Entry['settings'] } | readonly Record<string, Value>[]): string {
  // Nothing on several lines: what is indented here must not mean something else for it.
  const text = stringify(value, { lineWidth: 0, blockQuote: false, aliasDuplicateObjects: false })
  return text.trimEnd().replaceAll(/^/gm, '  ')
}
