import assert from 'node:assert/strict'
import { after, before, suite, type TestContext, test } from 'node:test'
import { unlessThere } from '../support/needed-programs.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { fetchPyserialSource, type PyserialSource } from '../support/pyserial-source.ts'
import {
  BEYOND_A_PTY,
  BEYOND_THE_CLIENT,
  countOutcomes,
  type Outcomes,
  runPyserialSuite,
} from '../support/pyserial-suite.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** pyserial's own tests, as its authors wrote them, through farport's RFC 2217 port. */

/** Two at once: one file takes as long as all others together. */
const PORTS = ['one', 'two'] as const

let source: PyserialSource | undefined
let reference: Promise<Outcomes> | undefined

/** The suite through one agent and one client, on ports that echo. */
async function throughFarport(
  t: TestContext,
  homes: TwoHomes,
  devices: readonly string[],
  failing: readonly string[],
): Promise<void> {
  await homes.grant('ports=*')
  await homes.share(...PORTS.map((name, i) => `${devices[i]}=${name}`))
  const links: string[] = []
  for (const name of PORTS) {
    const client = await homes.connect(`a/${name}`, '--rfc2217', '127.0.0.1:0')
    links.push(`rfc2217://${client.links[0]?.at}`)
  }
  const outcomes = await runPyserialSuite(source?.folder ?? '', links, {
    failing,
    onFailures: (tracebacks) => t.diagnostic(tracebacks),
  })
  await compare(t, outcomes, failing)
}

/** Each test ends as at pyserial's own loop:// port, but for these, which fail. */
async function compare(t: TestContext, outcomes: Outcomes, failing: readonly string[]): Promise<void> {
  const { ok, failed, skipped } = countOutcomes(outcomes)
  t.diagnostic(`pyserial ${source?.version}: ${ok} ok, ${failed} failed, ${skipped} skipped`)
  const expected = { ...(await reference) }
  for (const name of failing) expected[name] = 'failed'
  assert.deepEqual(outcomes, expected)
}

suite("pyserial's own tests", {
  skip: unlessThere('apt-get', 'python3'),
  concurrency: true,
  timeout: 300_000,
}, () => {
  before(async () => {
    source = await fetchPyserialSource()
    reference = runPyserialSuite(source.folder, ['loop://', 'loop://'], { failing: [] })
    reference.catch(() => {})
  })
  after(() => source?.[Symbol.asyncDispose]())

  test('at its own loop:// port, for comparison: none fails', async (t) => {
    const { ok, failed, skipped } = countOutcomes((await reference) ?? {})
    t.diagnostic(`pyserial ${source?.version}: ${ok} ok, ${failed} failed, ${skipped} skipped`)
    assert.equal(failed, 0)
    assert.ok(ok > 50, `only ${ok} tests were found`)
  })

  test("at a device with modem lines, without ign_set_control: only the client's own five fail", async (t) => {
    await using homes = await TwoHomes.make()
    await throughFarport(t, homes, ['simulated:echo', 'simulated:echo'], BEYOND_THE_CLIENT)
  })

  test('at a device without modem lines, without ign_set_control: those, and the two that need the lines', async (t) => {
    await using homes = await TwoHomes.make()
    const devices = PORTS.map(() => {
      const { master, slavePath } = homes.use(ptyPair())
      master.pipe(master)
      return slavePath
    })
    await throughFarport(t, homes, devices, [...BEYOND_THE_CLIENT, ...BEYOND_A_PTY])
  })
})
