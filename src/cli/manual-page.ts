/**
 * Manual pages in mdoc(7). A line that begins with a dot is a macro; `\` begins an escape, so one that is meant is `\e`.
 */
import type { Command, Option } from 'commander'
import packageJson from '../../package.json' with { type: 'json' }
import { describedKeys } from '../config/describe-keys.ts'
import { EXIT } from './exit-code.ts'

const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: 'All is well.',
  failed: 'Something went wrong; the sentence on standard error says what.',
  usage: 'The command line or farport.yaml is wrong.',
  notTrusted: 'The peer does not know us, or does not let us do this.',
  busy: 'The port is in use.',
  absent: 'There is no such port, or its device is not there.',
  unreachable: 'The peer, the relay or the server can not be reached.',
  unfit: 'This machine has to be mended first.',
  interrupted: 'Ended by Ctrl-C.',
}

/** Taken by every command, and told once. */
const COMMON = ['--home', '--json', '--log-level', '--help']

/** farport(1). */
export function commandsPage(program: Command): string {
  const help = program.createHelp()
  const commands = help.visibleCommands(program).filter((command) => command.name() !== 'help')
  const options = commands[0] === undefined ? [] : help.visibleOptions(commands[0])
  return page(
    ...title('FARPORT', 1),
    '.Sh NAME',
    '.Nm farport',
    '.Nd serial ports of other machines, made local',
    '.Sh SYNOPSIS',
    '.Nm farport',
    '.Ar command',
    '.Op Ar options',
    '.Sh DESCRIPTION',
    text(program.description()),
    '.Sh COMMANDS',
    ...commands.flatMap((command) => describe(command, command.name())),
    '.Sh OPTIONS',
    'All commands take these:',
    ...list(options.filter(({ long }) => COMMON.includes(long ?? '')).map(optionItem)),
    '.Sh ENVIRONMENT',
    ...list([{ tag: '.It Ev FARPORT_HOME', body: 'Where keys and trusted_peers are, unless --home says.' }]),
    '.Sh FILES',
    ...list([
      { tag: '.It Pa ~/.config/farport', body: 'Keys, trusted_peers and farport.yaml.' },
      { tag: '.It Pa /var/lib/farport', body: "The same for the Debian package's service." },
      { tag: '.It Pa /etc/farport/farport.yaml', body: 'What that service runs.' },
    ]),
    '.Sh EXIT STATUS',
    ...list(
      Object.entries(EXIT_MEANINGS).map(([name, body]) => ({
        tag: `.It ${EXIT[name as keyof typeof EXIT]}`,
        body,
      })),
    ),
    '.Sh SEE ALSO',
    '.Xr farport.yaml 5',
  )
}

/** farport.yaml(5). */
export function configPage(): string {
  return page(
    ...title('FARPORT.YAML', 5),
    '.Sh NAME',
    '.Nm farport.yaml',
    '.Nd what farport up runs',
    '.Sh DESCRIPTION',
    'A YAML file with the keys below, all of which may be left out unless it says otherwise.',
    'A dot stands for the group that a key is in,',
    '.Li NAME',
    'for a name of your own choice, and',
    '.Li []',
    'for each item of a list.',
    'Behind a semicolon stands what holds when the key is left out.',
    '.Pp',
    '.Ql farport config check',
    'looks the file over.',
    '.Sh KEYS',
    ...list(
      describedKeys().map(({ key, text: about, mayBeLeftOut }) => ({
        tag: `.It Cm ${inline(key)}`,
        body: [about, ...(mayBeLeftOut ? [] : ['(has to be there)'])].join(' ').trim(),
      })),
    ),
    '.Sh FILES',
    ...list([
      { tag: '.It Pa ~/.config/farport/farport.yaml', body: 'For a farport that a user starts.' },
      { tag: '.It Pa /etc/farport/farport.yaml', body: "For the Debian package's service." },
    ]),
    '.Sh EXAMPLES',
    ...literal(
      [
        'ports:',
        '  gps: /dev/serial/by-id/usb-u-blox_GNSS-if00',
        'links:',
        '  - port: workshop/plc',
        '    pty: /run/farport/plc',
        '    line: 9600-7E1',
      ].join('\n'),
    ),
    '.Sh SEE ALSO',
    '.Xr farport 1',
  )
}

interface Item {
  /** A line with the macro .It */
  readonly tag: string
  readonly body: string
}

function describe(command: Command, name: string): string[] {
  const help = command.createHelp()
  const usage = `farport ${name} ${command.usage()}`
  const items = [
    ...help.visibleArguments(command).map((argument) => ({
      tag: `.It Ar ${inline(argument.name())}`,
      body: argument.description,
    })),
    ...help
      .visibleOptions(command)
      .filter(({ long }) => !COMMON.includes(long ?? ''))
      .map(optionItem),
  ]
  const inner = help.visibleCommands(command).filter((sub) => sub.name() !== 'help')
  return [
    `.Ss ${inline(usage)}`,
    text(command.description()),
    ...list(items),
    ...literal(textAfterHelp(command)),
    ...inner.flatMap((sub) => describe(sub, `${name} ${sub.name()}`)),
  ]
}

function optionItem(option: Option): Item {
  const choices = option.argChoices === undefined ? '' : ` (${option.argChoices.join(', ')})`
  return { tag: `.It Li ${inline(option.flags)}`, body: `${option.description}${choices}` }
}

/** What commander's addHelpText has put below a command's help: it tells only whoever prints it. */
function textAfterHelp(command: Command): string {
  let after = ''
  const write = (more: string) => {
    after += more
  }
  const emitter = command as unknown as NodeJS.EventEmitter
  emitter.emit('afterHelp', { error: false, command, write })
  return after.trim()
}

function title(name: string, section: number): string[] {
  // The day of a build would make two builds of one source differ.
  return ['.Dd $Mdocdate$', `.Dt ${name} ${section}`, `.Os farport ${packageJson.version}`]
}

function list(items: readonly Item[]): string[] {
  if (items.length === 0) return []
  const lines = items.flatMap(({ tag, body }) => (body === '' ? [tag] : [tag, text(body)]))
  return ['.Bl -tag -width Ds', ...lines, '.El']
}

function literal(lines: string): string[] {
  if (lines === '') return []
  return ['.Bd -literal', ...escaped(lines).split('\n').map(protectedLine), '.Ed']
}

/** A paragraph: whatever a line begins with is no macro, and each sentence begins a line, so that man sets it off. */
function text(words: string): string {
  return escaped(words)
    .replaceAll(/([\w)][.?!]) (?=[A-Z])/g, '$1\n')
    .split('\n')
    .map(protectedLine)
    .join('\n')
}

function protectedLine(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line
}

/** Behind a macro: quoted, so that no word of it is taken for another macro. */
function inline(words: string): string {
  return `"${escaped(words).replaceAll('"', '\\(dq')}"`
}

function escaped(words: string): string {
  return words.replaceAll('\\', '\\e').replaceAll('--', '\\-\\-')
}

function page(...lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}
