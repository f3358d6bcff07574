import { Command } from 'commander'
import type { Diagnosis } from '../daemon/doctor.ts'
import type { Finding } from '../daemon/finding.ts'
import type { ProbeReport } from '../daemon/rfc2217-probe.ts'
import { FarportError } from '../errors.ts'
import { EXIT } from './exit-code.ts'
import { type CommonFlags, run } from './run.ts'

interface DoctorFlags extends CommonFlags {
  relay?: string[]
}

export const doctorCommand = new Command('doctor')
  .description(
    'what keeps farport from working here: runtime, files, ports, relays, NAT; or how right an RFC 2217 server is',
  )
  .argument('[host:port]', 'an RFC 2217 server to ask everything: see below')
  .option(
    '--relay <relay...>',
    'relays to examine: names, or addresses with /p2p/PEERID (default: those that lead to peers in trusted_peers)',
  )
  .addHelpText(
    'after',
    `
Ends with 0 when all is well, 3 when no relay lets us in, 6 when none is reached, 7 when this machine has to be mended.

With HOST:PORT it asks that server, of any make, for all that RFC 2217 has, and says what a wrong answer costs. No data is
sent, but settings change, DTR and RTS move, a break is sent and buffers are purged: not for a port that is in use.
Settings and lines are put back, and what could not be is told. Ends with 0 when every answer is right, 1 when one is
wrong or missing, 6 when nobody answers there.`,
  )
  .action(async (server: string | undefined, flags: DoctorFlags) => {
    if (server !== undefined) {
      await probe(server, flags)
      return
    }
    let verdict: Diagnosis['verdict'] = 'well'
    await run(flags, async ({ home, output, log, signal }) => {
      const { examine } = await import('../daemon/doctor.ts')
      const findings: Finding[] = []
      const tell = (finding: Finding) => {
        findings.push(finding)
        // One by one, since some take seconds.
        if (!output.json) process.stdout.write(`${line(finding)}\n`)
      }
      const diagnosis = await examine({ home, relays: flags.relay ?? [], log, signal, tell })
      verdict = diagnosis.verdict
      output.result({ ...diagnosis, findings }, '')
    })
    if (process.exitCode === EXIT.ok) process.exitCode = EXIT_CODES[verdict]
  })

async function probe(server: string, flags: DoctorFlags): Promise<void> {
  let right = false
  await run(flags, async ({ output, signal }) => {
    if (flags.relay !== undefined)
      throw new FarportError('ERR_USAGE', 'HOST:PORT is about a serial server, --relay about this machine.')
    const { parseTcpAddress } = await import('../serial/tcp-dial.ts')
    const { probeAddress } = await import('../daemon/rfc2217-probe.ts')
    const report = await probeAddress(parseTcpAddress(server), signal)
    right = report.findings.every(({ verdict }) => verdict === 'right' || verdict === 'refused')
    output.result({ server, right, ...report }, table(report))
  })
  if (process.exitCode === EXIT.ok && !right) process.exitCode = EXIT.failed
}

function table({ findings, leftChanged }: ProbeReport): string {
  const requestWidth = Math.max(...findings.map(({ request }) => request.length))
  const answerWidth = Math.min(40, Math.max(...findings.map(({ answer }) => answer.length)))
  const lines = findings.map(({ request, answer, verdict, breaks }) =>
    [verdict.padEnd(7), request.padEnd(requestWidth), answer.padEnd(answerWidth), breaks ?? '']
      .join('  ')
      .trimEnd(),
  )
  return [...lines, ...leftChanged.map((text) => `left changed: ${text}`), ''].join('\n')
}

const EXIT_CODES: Record<Diagnosis['verdict'], number> = {
  well: EXIT.ok,
  unfit: EXIT.unfit,
  'turned away': EXIT.notTrusted,
  'no relay reached': EXIT.unreachable,
}

function line({ about, verdict, text, remedy }: Finding): string {
  const end = remedy === undefined ? '' : `. To mend: ${remedy}`
  return `${verdict.padEnd(4)}  ${about.padEnd(7)}  ${text}${end}`
}
