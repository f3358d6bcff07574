import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { loadLibc } from '../../src/device/libc.ts'
import { farport } from '../support/cli.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'

const skip = process.platform === 'linux' ? false : 'only Linux has these PTYs'

test('whoever asks for a port that another program has hears which, and exit code 4', {
  skip,
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const pty = homes.use(ptyPair())
  await homes.grant('ports=*')
  await homes.share(`${pty.slavePath}=taken`)
  const libc = loadLibc()
  const fd = libc.open(pty.slavePath)
  assert.ok(libc.tryLock(fd))
  const holder = spawn('sleep', ['60'], { stdio: [fd, 'ignore', 'ignore'] })
  await once(holder, 'spawn')
  libc.close(fd)
  try {
    const { code, stderr } = await farport(['connect', 'a/taken', '--stdio', '--home', homes.clientHome])
    assert.equal(code, 4)
    // This process has it open, too.
    assert.match(
      stderr,
      new RegExp(
        `is in use by (sleep \\(process ${holder.pid}\\)|node \\(process ${process.pid}\\)): end that`,
      ),
    )
  } finally {
    holder.kill()
    await once(holder, 'exit')
  }
})
