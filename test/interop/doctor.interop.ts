import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ProbeReport } from '../../src/rfc2217/probe.ts'
import type { ProbeFinding } from '../../src/rfc2217/probe-findings.ts'
import { farport } from '../support/cli.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { SERVERS } from '../support/rfc2217-servers.ts'

const TIMEOUT = { timeout: 120_000 }

/** What `farport doctor HOST:PORT` says of a server of this kind in front of a PTY, and its exit code. */
async function examined(kind: string): Promise<{ code: number | null; report: ProbeReport }> {
  const server = SERVERS.find(({ name }) => name === kind)
  assert.ok(server)
  await using pty = ptyPair()
  await using running = await server.start(pty.slavePath)
  const { code, stdout, stderr } = await farport(['doctor', running.at, '--json'])
  assert.notEqual(stdout, '', stderr)
  return { code, report: JSON.parse(stdout) as ProbeReport }
}

function verdicts({ findings }: ProbeReport, ...requests: string[]): (ProbeFinding['verdict'] | undefined)[] {
  return requests.map((request) => findings.find((finding) => finding.request === request)?.verdict)
}

test(
  'farport doctor: every answer of a far farport port is right, and the port is left as it was',
  TIMEOUT,
  async () => {
    const { code, report } = await examined('farport')
    const wrong = report.findings.filter(({ verdict }) => verdict === 'wrong' || verdict === 'silent')
    assert.deepEqual(wrong, [])
    assert.deepEqual(report.leftChanged, [])
    assert.equal(code, 0)
  },
)

test('farport doctor: it names what ser2net leaves unanswered, and what that breaks', {
  skip: unlessThere('ser2net'),
  ...TIMEOUT,
}, async () => {
  const { code, report } = await examined('ser2net')
  assert.equal(code, 1)
  assert.deepEqual(verdicts(report, 'baud rate 250000', 'purge both', 'parity even'), [
    'right',
    'right',
    'right',
  ])
  // A PTY has no modem lines, and of what a port does not have ser2net says nothing.
  assert.deepEqual(verdicts(report, 'stop bits 1.5', 'parity 6', 'data bits 9', 'control 20'), [
    ...['silent', 'silent', 'silent', 'silent'],
  ])
  assert.notEqual(verdicts(report, 'DTR on')[0], 'right')
  assert.match(report.findings.find(({ request }) => request === 'DTR on')?.breaks ?? '', /ign_set_control/)
  assert.deepEqual(verdicts(report, 'FLOWCONTROL-SUSPEND'), ['wrong'])
})

test('farport doctor: it survives what sredird does not, and names it', {
  skip: unlessThere('sredird', 'socat'),
  ...TIMEOUT,
}, async () => {
  const { code, report } = await examined('sredird')
  assert.equal(code, 1)
  assert.deepEqual(verdicts(report, 'baud rate?', 'DTR on', 'RTS on', 'baud rate 4294967295'), [
    ...['wrong', 'wrong', 'wrong', 'wrong'],
  ])
  assert.deepEqual(verdicts(report, 'baud rate 1000000', 'FLOWCONTROL-SUSPEND'), ['refused', 'wrong'])
})
