import { Command } from 'commander'
import type { Diagnosis } from '../daemon/doctor.ts'
import type { Finding } from '../daemon/finding.ts'
import { EXIT } from './exit-code.ts'
import { type CommonFlags, run } from './run.ts'

interface DoctorFlags extends CommonFlags {
  relay?: string[]
}

export const doctorCommand = new Command('doctor')
  .description('what keeps this machine from its peers: keys, clock, relays, NAT; and what to do about it')
  .option(
    '--relay <relay...>',
    'relays to examine: names, or addresses with /p2p/PEERID (default: those that lead to peers in trusted_peers)',
  )
  .addHelpText(
    'after',
    '\nEnds with 0 when all is well, 3 when no relay lets us in, 6 when none is reached, 7 when this machine has to be mended.',
  )
  .action(async (flags: DoctorFlags) => {
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

const EXIT_CODES: Record<Diagnosis['verdict'], number> = {
  well: EXIT.ok,
  unfit: EXIT.unfit,
  'turned away': EXIT.notTrusted,
  'no relay reached': EXIT.unreachable,
}

function line({ about, verdict, text, remedy }: Finding): string {
  const end = remedy === undefined ? '' : `. To mend: ${remedy}`
  return `${verdict.padEnd(4)}  ${about.padEnd(5)}  ${text}${end}`
}
