import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { run } from 'node:test'
import { promisify } from 'node:util'
import pkg from '../../package.json' with { type: 'json' }
import { probeAddress } from '../../src/daemon/rfc2217-probe.ts'
import type { ProbeVerdict } from '../../src/rfc2217/probe-findings.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { fetchPyserialSource } from '../support/pyserial-source.ts'
import {
  BEYOND_A_PTY,
  BEYOND_THE_CLIENT,
  countOutcomes,
  runPyserialSuite,
} from '../support/pyserial-suite.ts'
import { type Rfc2217ServerKind, SERVERS } from '../support/rfc2217-servers.ts'
import { besideStalled, burstEchoed, echoMedianMs, opensInPyserial } from '../support/server-measures.ts'

/**
 * Prints docs/compatibility.md: what the interop tests say, one row each, and farport beside the servers it replaces,
 * measured now, on this machine.
 */

const ask = promisify(execFile)
const FILE_TIMEOUT_MS = 300_000
const PROBE_TIMEOUT_MS = 120_000

const PACKAGES = [
  'python3-serial',
  'ser2net',
  'sredird',
  'gensio-bin',
  'socat',
  'tio',
  'picocom',
  'minicom',
  'screen',
]

const missing = unlessThere('python3', 'ser2net', 'sredird', 'socat', 'apt-get')
if (missing !== false) {
  process.stderr.write(`compat: ${missing}\n`)
  process.exit(7)
}

interface Row {
  readonly what: string
  readonly result: string
  readonly notes: string[]
}

/** Runs the interop tests. */
async function programs(): Promise<Row[]> {
  const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.interop.ts'))
  const rows: Row[] = []
  // A suite is named before its tests, which come one deeper.
  const above: string[] = []
  const events = run({
    files: files.sort().map((name) => join(import.meta.dirname, name)),
    concurrency: 1,
    timeout: FILE_TIMEOUT_MS,
  })
  for await (const { type, data } of events) {
    switch (type) {
      case 'test:start':
        above[data.nesting] = data.name
        break
      case 'test:pass':
      case 'test:fail': {
        if (data.details.type === 'suite') break
        const what = [...above.slice(0, data.nesting), data.name].join(' ')
        const skipped = data.skip === undefined ? undefined : `not tried: ${data.skip}`
        rows.push({ what, result: skipped ?? (type === 'test:pass' ? 'works' : '**fails**'), notes: [] })
        process.stderr.write(`compat: ${what}: ${rows.at(-1)?.result}\n`)
        break
      }
      case 'test:diagnostic':
        if (data.file !== undefined) rows.at(-1)?.notes.push(data.message)
        break
    }
  }
  return rows
}

function tell(name: string, text: string): string {
  process.stderr.write(`compat: ${name}: ${text}\n`)
  return text
}

/** A server of this kind with a device of its own, up to where the stack ends. */
async function served({ start }: Rfc2217ServerKind, stack: AsyncDisposableStack) {
  const device = stack.use(ptyPair())
  return { device, ...stack.use(await start(device.slavePath)) }
}

/** What takes time and is measured, one server after the other. */
async function measure(kind: Rfc2217ServerKind): Promise<string[]> {
  await using stack = new AsyncDisposableStack()
  const { device, at } = await served(kind, stack)
  const talker = await served(kind, stack)
  device.master.pipe(device.master)
  return [
    tell(kind.name, `${(await echoMedianMs(at)).toFixed(2)} ms`),
    tell(kind.name, await burstEchoed(at)),
    tell(
      kind.name,
      talker.alsoAt === undefined
        ? 'takes one program only'
        : await besideStalled(talker.at, talker.alsoAt, talker.device),
    ),
  ]
}

/** What mostly waits for answers that do not come, all servers at once. */
async function examine(kind: Rfc2217ServerKind, pyserial: string): Promise<string[]> {
  await using stack = new AsyncDisposableStack()
  const { device, at } = await served(kind, stack)
  device.master.pipe(device.master)
  const opens = await opensInPyserial(at)
  const url = `rfc2217://${at}${opens ? '' : '?ign_set_control'}`
  const suite = await suiteResult(pyserial, url, opens)
  // Last and at a server of its own: some servers lose their way over it.
  const asked = await served(kind, stack)
  const port = Number(asked.at.split(':')[1])
  const { findings } = await probeAddress({ host: '127.0.0.1', port }, AbortSignal.timeout(PROBE_TIMEOUT_MS))
  const count = (verdict: ProbeVerdict) => findings.filter((finding) => finding.verdict === verdict).length
  return [
    tell(kind.name, opens ? 'yes' : 'no'),
    tell(kind.name, suite),
    tell(
      kind.name,
      `${count('right')} of ${findings.length} right, ${count('refused')} refused, ${count('wrong')} wrong, ${count('silent')} not answered`,
    ),
  ]
}

async function suiteResult(pyserial: string, url: string, opens: boolean): Promise<string> {
  const failing = [...BEYOND_THE_CLIENT, ...BEYOND_A_PTY]
  const { ok, failed, skipped } = countOutcomes(await runPyserialSuite(pyserial, [url], { failing }))
  return `${ok} ok, ${failed} failed, ${skipped} skipped${opens ? '' : ', with ign_set_control'}`
}

const MEASURES = [
  'one byte to the device and back, median of 1000',
  '60 000 bytes at once, echoed',
  'two programs, one stops reading: the other gets',
  'pyserial opens it, no options',
  "pyserial's own tests",
  'every request of RFC 2217, as `farport doctor HOST:PORT` asks them',
]

async function version(name: string): Promise<string> {
  const { stdout } = await ask('dpkg-query', ['--show', name]).catch(() => ({ stdout: `${name} (not here)` }))
  return stdout.trim().replace('\t', ' ')
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[]) =>
    `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [cells(head), cells(head.map(() => '---')), ...rows.map(cells)].join('\n')
}

/** "tio on the PTY" and "bytes both ways, …". */
function inTwo(what: string): [string, string] {
  const at = what.indexOf(': ')
  const space = what.indexOf(' ')
  return at === -1 ? [what.slice(0, space), what.slice(space + 1)] : [what.slice(0, at), what.slice(at + 2)]
}

const rows = await programs()
const columns: string[][] = []
{
  await using source = await fetchPyserialSource()
  // One after the other: they are timed.
  for (const server of SERVERS) columns.push(await measure(server))
  const examined = await Promise.all(SERVERS.map((server) => examine(server, source.folder)))
  for (const [i, cells] of examined.entries()) columns[i]?.push(...cells)
}

process.stdout.write(`# What works with farport

Printed by \`npm run compat\` on ${new Date().toISOString().slice(0, 10)}: farport ${pkg.version}, Node ${process.versions.node}, Linux ${release()};
${(await Promise.all(PACKAGES.map(version))).join(', ')}.
Each row is a test in \`test/interop/\`, or a measurement in \`test/interop/compatibility.ts\`.

## Programs

The device is a PTY behind one farport; the program uses it through another. "At the device" means: in its termios.

${table(
  ['program', 'checked', 'result'],
  rows.map(({ what, result, notes }) => {
    const [program, checked] = inTwo(what)
    // Times of single steps are for who reads the test's own output.
    const counts = notes.filter((note) => / ok, \d+ failed/.test(note))
    return [program, checked, [result, ...counts].join('; ')]
  }),
)}

## Beside other RFC 2217 servers

The same rig for each: a PTY that echoes, a program on TCP at 127.0.0.1. ser2net and sredird (under socat) are one process at the
device, which is their job; farport is the agent, the client and the encrypted connection between them.

${table(
  ['', ...SERVERS.map(({ name }) => name)],
  MEASURES.map((name, i) => [name, ...columns.map((column) => column[i] ?? '')]),
)}

Of pyserial's tests, five fail at every server, since its RFC 2217 client lacks what they test (\`write_timeout\`, \`cancel_read\`,
\`cancel_write\`, reading without waiting); on a PTY two more do, since RTS and DTR have no wires there to come back on.
`)
process.exitCode = rows.some(({ result }) => result.startsWith('**')) ? 1 : 0
