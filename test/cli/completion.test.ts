import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { farport } from '../support/cli.ts'

const ANNA = '12D3KooWMm4HZ4NgffbB9cyLX1VEyj7zc7c3RwN3XfaJddQY6Nf1'
/** What the script is made on. */
const BASH_COMPLETION = '. /usr/share/bash-completion/bash_completion && type _get_comp_words_by_ref'
let home = ''

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'farport-tab-'))
  await writeFile(join(home, 'trusted_peers'), `anna ${ANNA} ports=*\n`, { mode: 0o600 })
  await writeFile(join(home, 'farport.yaml'), 'links:\n  - port: workshop/gps\n    pty: /run/gps\n')
})
after(() => rm(home, { recursive: true }))

/** What Tab offers when the last word is being typed. */
async function offered(...words: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await farport(['complete', '--', ...words], {
    env: { FARPORT_HOME: home },
  })
  assert.deepEqual([code, stderr], [0, ''])
  // The last line is a directive for the script: no names of files.
  const lines = stdout.trimEnd().split('\n')
  assert.equal(lines.pop(), ':4')
  return lines.map((line) => line.split('\t')[0] as string)
}

test('commands, options and their choices', async () => {
  assert.deepEqual(await offered('rel'), ['relay', 'reload'])
  assert.deepEqual(await offered('doctor', '--re'), ['--relay'])
  assert.ok((await offered('config', '')).includes('check'))
  assert.ok((await offered('up', '--log-level', '')).includes('debug'))
  assert.ok(!(await offered('c')).includes('complete'))
})

test('peers from trusted_peers, and their ports as farport.yaml uses them', async () => {
  for (const command of ['ping', 'ports', 'revoke']) assert.deepEqual(await offered(command, ''), ['anna'])
  assert.deepEqual(await offered('connect', ''), ['workshop/gps', 'anna/'])
  assert.deepEqual(await offered('connect', 'an'), ['anna/'])
})

test('another home, and none: nothing is offered, and no error is in the way', async () => {
  assert.deepEqual(await offered('ping', '--home', join(home, 'none'), ''), [])
  assert.deepEqual(await offered('ping', '--home', '', ''), [])
})

test('the scripts are ones that their shells understand', async (t) => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout } = await farport(['completion', shell])
    assert.equal(code, 0)
    assert.match(stdout, /farport complete -- /)
    if (spawnSync(shell, ['--version']).error !== undefined) {
      t.diagnostic(`no ${shell} here`)
      continue
    }
    const { status, stderr } = spawnSync(shell, ['-n'], { input: stdout, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  assert.equal((await farport(['completion', 'ksh'])).code, 2)
})

test('bash completes the name of a peer', { skip: whyNoBash() }, async () => {
  const { stdout: script } = await farport(['completion', 'bash'])
  const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
  const session = `
${BASH_COMPLETION}
farport() { '${process.execPath}' '${main}' "$@"; }
${script}
COMP_WORDS=(farport ping a); COMP_CWORD=2; COMP_LINE='farport ping a'; COMP_POINT=14
__farport_complete
printf '%s\\n' "\${COMPREPLY[@]}"
`
  const stdout = execFileSync('bash', ['-c', session], {
    encoding: 'utf8',
    // compopt complains when no Tab was pressed.
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, FARPORT_HOME: home },
  })
  assert.match(stdout, /^anna\b/m)
})

test('who does not press Tab does not wait for it', async () => {
  const hook = `import { registerHooks } from 'node:module'
    registerHooks({ resolve(name, context, next) { process.stderr.write(name + '\\n'); return next(name, context) } })`
  const env = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(hook)}` }
  const { stderr: loaded } = await farport(['--version'], { env })
  assert.match(loaded, /completion\.ts/)
  assert.doesNotMatch(loaded, /bomb\.sh|suggestions\.ts|manual-page\.ts|libp2p/)
})

function whyNoBash(): string | false {
  return spawnSync('bash', ['-c', BASH_COMPLETION]).status === 0 ? false : 'needs bash-completion'
}
