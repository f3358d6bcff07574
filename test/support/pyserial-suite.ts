import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
/** Debian's Python, whatever else is first on PATH. */
const PYTHON = '/usr/bin/python3'
const driver = new URL('../interop/pyserial_suite.py', import.meta.url).pathname
const ATTEMPTS = 3
const FILE_TIMEOUT_MS = 180_000

/** What became of each test, by its name. */
export type Outcomes = { readonly [test: string]: 'ok' | 'failed' | 'skipped' }

interface SuiteOptions {
  /** Tests that may fail. Others are given another chance. */
  failing: readonly string[]
  /** Told why tests failed. */
  onFailures?: (tracebacks: string) => void
}

/**
 * Runs all of pyserial's tests against ports that echo, as many files at once as there are ports. Nothing is said of a
 * test that was never reached, so compare the outcomes of one port with those of another.
 *
 * The tests give an echo 50 ms, on a busy machine not always enough: one that fails and need not is run again, by itself.
 */
export async function runPyserialSuite(
  folder: string,
  urls: readonly string[],
  { failing, onFailures = () => {} }: SuiteOptions,
): Promise<Outcomes> {
  const files = (await readdir(join(folder, 'test'))).filter((name) => /^test.*\.py$/.test(name)).sort()
  const outcomes: { [test: string]: 'ok' | 'failed' | 'skipped' } = {}
  const lane = async (url: string) => {
    for (let file = files.shift(); file !== undefined; file = files.shift()) {
      let unexpected: string[] = []
      for (let attempt = 1; attempt === 1 || (unexpected.length > 0 && attempt <= ATTEMPTS); attempt++) {
        const args = [driver, folder, file, url, ...unexpected]
        const { stdout, stderr } = await run(PYTHON, args, { timeout: FILE_TIMEOUT_MS })
        const found = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Outcomes
        Object.assign(outcomes, found)
        unexpected = Object.keys(found).filter((name) => found[name] === 'failed' && !failing.includes(name))
        if (stderr !== '') onFailures(stderr)
      }
    }
  }
  await Promise.all(urls.map(lane))
  return Object.fromEntries(Object.entries(outcomes).sort(([x], [y]) => (x < y ? -1 : 1)))
}

/** What pyserial's RFC 2217 client can't do at any server: no write_timeout, nothing to cancel, read(n) at once gives one byte. */
export const BEYOND_THE_CLIENT = [
  'Test4_Nonblocking.test2_Loopback',
  'Test4_Nonblocking.test2_LoopbackTimeout',
  'TestCancelRead.test_cancel_once',
  'TestCancelWrite.test_cancel_once',
  'Test_MoreTimeouts.test_WriteTimeout',
] as const

/** What a device without modem lines can't do: it has no wires that come back from RTS and DTR. */
export const BEYOND_A_PTY = ['Test0_DataWires.test1_RTS', 'Test0_DataWires.test2_DTR'] as const

export function countOutcomes(outcomes: Outcomes): { ok: number; failed: number; skipped: number } {
  const count = { ok: 0, failed: 0, skipped: 0 }
  for (const outcome of Object.values(outcomes)) count[outcome]++
  return count
}
