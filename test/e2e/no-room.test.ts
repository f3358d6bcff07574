import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadIdentity } from '../../src/trust/identity.ts'
import { type Ended, farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** A home on a disk that is full, or can only be read: what is said, and that nothing of what was there is lost. */

const skip =
  process.platform === 'linux' && process.getuid?.() === 0
    ? false
    : 'only root can mount a small disk, on Linux'
if (skip !== false && process.platform === 'linux' && process.env.CI) throw new Error(skip)

type Fault = 'full' | 'read-only'

/** A small file system of its own. */
class Disk implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'farport-disk-'))

  constructor() {
    const { status, stderr } = spawnSync('/bin/mount', [
      '-t',
      'tmpfs',
      '-o',
      'size=64k,mode=700',
      'tmpfs',
      this.path,
    ])
    assert.equal(status, 0, String(stderr))
  }

  fail(fault: Fault): void {
    if (fault === 'read-only')
      assert.equal(spawnSync('/bin/mount', ['-o', 'remount,ro', this.path]).status, 0)
    else
      assert.throws(() => writeFileSync(join(this.path, 'filler'), Buffer.alloc(128 * 1024)), {
        code: 'ENOSPC',
      })
  }

  mend(fault: Fault): void {
    if (fault === 'read-only')
      assert.equal(spawnSync('/bin/mount', ['-o', 'remount,rw', this.path]).status, 0)
    else unlinkSync(join(this.path, 'filler'))
  }

  [Symbol.dispose](): void {
    // Lazily: a process that has just ended may still hold a file.
    assert.equal(spawnSync('/bin/umount', ['-l', this.path]).status, 0)
    rmSync(this.path, { recursive: true })
  }
}

/** One sentence that names the file and the reason, and exit status 1. */
function assertRefused({ code, stdout, stderr }: Ended, sentence: RegExp): void {
  assert.match(stderr, sentence)
  assert.match(stderr, /^farport: .*\n$/, 'one line, and no stack')
  assert.equal(stdout, '')
  assert.equal(code, 1)
}

for (const [fault, code] of [
  ['full', 'ENOSPC|the disk is full'],
  ['read-only', 'EROFS'],
] as const) {
  test(`a disk that is ${fault}: a new home can't be made on it`, { skip, timeout: 60_000 }, async () => {
    using disk = new Disk()
    const home = join(disk.path, 'home')
    mkdirSync(home, { mode: 0o700 })
    disk.fail(fault)
    const listen = ['--listen', '/ip4/127.0.0.1/tcp/0']
    for (const [args, input] of [
      [['share', 'simulated:gps', ...listen], ''],
      [['invite', 'gps', ...listen], ''],
      [['pair'], '734-lunar-maple-copper'],
    ] as const)
      assertRefused(
        await farport([...args, '--home', home], { input }),
        new RegExp(`home/identity.key can't be written \\((${code})\\)`),
      )
    assert.deepEqual(await readdir(home), [])
    disk.mend(fault)
    assert.equal((await farport(['id', '--home', home])).code, 0)
  })

  test(`a disk that is ${fault}: trust can't be taken back, and is as it was`, {
    skip,
    timeout: 60_000,
  }, async () => {
    using disk = new Disk()
    await using homes = await TwoHomes.make()
    const before = `${'# a comment\n'.repeat(700)}client ${homes.clientId} ports=gps\n`
    const trusted = join(disk.path, 'trusted_peers')
    writeFileSync(trusted, before, { mode: 0o600 })
    disk.fail(fault)
    assertRefused(
      await farport(['revoke', 'client', '--home', disk.path]),
      new RegExp(`revoked_peers can't be written \\((${code})\\)`),
    )
    assert.equal(readFileSync(trusted, 'utf8'), before)
    disk.mend(fault)
    assert.equal((await farport(['revoke', 'client', '--home', disk.path])).code, 0)
  })

  test(`the inviter's disk is ${fault} when somebody pairs: both are told, and nobody is trusted`, {
    skip,
    timeout: 60_000,
  }, async () => {
    using disk = new Disk()
    await using homes = await TwoHomes.make()
    await loadIdentity(disk.path, { create: true })
    const before = '# a comment\n'.repeat(700)
    writeFileSync(join(disk.path, 'trusted_peers'), before, { mode: 0o600 })
    const listen = ['--listen', '/ip4/127.0.0.1/tcp/0']
    const invite = homes.start(['invite', 'gps', ...listen, '--home', disk.path])
    const { text } = (await invite.event('invite')) as unknown as { text: string }
    disk.fail(fault)
    const paired = await farport(['pair', '--home', homes.clientHome], { input: text })
    assert.match(paired.stderr, /the other side could not note down that/)
    assert.notEqual(paired.code, 0)
    const { message } = await invite.event('error')
    assert.match(String(message), new RegExp(`trusted_peers can't be written \\((${code})\\)`))
    assert.equal(await invite.ended, 1)
    assert.equal(readFileSync(join(disk.path, 'trusted_peers'), 'utf8'), before)
    assert.deepEqual(
      (await readdir(homes.clientHome)).filter((name) => name === 'trusted_peers'),
      [],
    )
  })

  test(`the joiner's disk is ${fault}: it is told, and its file is as it was`, {
    skip,
    timeout: 60_000,
  }, async () => {
    using disk = new Disk()
    await using homes = await TwoHomes.make()
    await loadIdentity(disk.path, { create: true })
    const before = '# a comment\n'.repeat(700)
    writeFileSync(join(disk.path, 'trusted_peers'), before, { mode: 0o600 })
    // The machine that invites stays, so that it can say its last word.
    await homes.share('simulated:gps=gps')
    const invite = homes.start(['invite', 'gps', '--home', homes.agentHome])
    const { text } = (await invite.event('invite')) as unknown as { text: string }
    disk.fail(fault)
    assertRefused(
      await farport(['pair', '--home', disk.path], { input: text }),
      new RegExp(`trusted_peers can't be written \\((${code})\\)`),
    )
    assert.equal(readFileSync(join(disk.path, 'trusted_peers'), 'utf8'), before)
  })
}
