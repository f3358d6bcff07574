import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { parse } from 'yaml'

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFile(new URL(path, root), 'utf8')

const INSTRUCTIONS = /^(FROM|ARG|COPY|RUN|USER|ENV|VOLUME|EXPOSE|HEALTHCHECK|STOPSIGNAL|ENTRYPOINT|CMD) \S/

/** The Containerfile's instructions, lines joined and comments gone. */
async function instructions(): Promise<string[]> {
  const text = (await read('deploy/container/Containerfile'))
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll('\\\n', ' ')
  return text.split('\n').filter((line) => line !== '')
}

async function the(instruction: string): Promise<string> {
  const found = (await instructions()).filter((line) => line.startsWith(`${instruction} `))
  assert.equal(found.length, 1, `${instruction} once`)
  return (found[0] as string).slice(instruction.length + 1)
}

const words = (json: string) => JSON.parse(json) as string[]

test('the Containerfile is made of instructions, and ends as somebody else than root', async () => {
  for (const line of await instructions()) assert.match(line, INSTRUCTIONS)
  assert.equal(await the('USER'), 'farport')
})

test('it installs the package of this version, under the name that the package is given', async () => {
  const { version } = JSON.parse(await read('package.json')) as { version: string }
  const all = await instructions()
  assert.ok(all.includes(`ARG VERSION=${version}`))
  assert.match(await the('COPY'), /^dist\/farport_\$\{VERSION\}_\$\{TARGETARCH\}\.deb \/tmp\/farport\.deb$/)
  assert.match(
    await read('deploy/deb.ts'),
    /`farport_\$\{packageJson\.version\}_\$\{DEBIAN_ARCH\[arch\]\}\.deb`/,
  )
})

test('what it runs is in the package, and the package’s service does the same', async () => {
  const deb = await read('deploy/deb.ts')
  const [program] = words(await the('ENTRYPOINT'))
  assert.ok(program?.startsWith('/') && deb.includes(`'${program.slice(1)}'`), `${program} is in the package`)
  const command = words(await the('CMD'))
  const config = command.at(-1) as string
  assert.ok(deb.includes(`'${config.slice(1)}'`), `${config} is in the package`)
  const service = await read('deploy/systemd/farport.service')
  assert.ok(service.includes(`--config ${config}`))
  const [, home] = /^FARPORT_HOME=(.*)$/.exec(await the('ENV')) ?? []
  assert.ok(service.includes(`--home ${home}`))
  assert.equal(await the('VOLUME'), home)
  const [, health] = /CMD (\[.*\])$/.exec(await the('HEALTHCHECK')) ?? []
  assert.deepEqual(words(health as string), [program, 'status', '--quiet'])
})

test('the compose file gives the container what it needs, and no more', async () => {
  const compose = parse(await read('deploy/container/compose.yaml')) as {
    services: { farport: Record<string, unknown> & { volumes: string[]; build: Record<string, string> } }
    volumes: Record<string, unknown>
  }
  const { farport } = compose.services
  const { context, dockerfile } = farport.build
  const folder = new URL(`${context}/`, new URL('deploy/container/', root))
  assert.match(await readFile(new URL(dockerfile as string, folder), 'utf8'), /^FROM /m)
  assert.equal(farport.network_mode, 'host')
  assert.deepEqual(farport.device_cgroup_rules, ['c 188:* rw', 'c 166:* rw'])
  assert.equal(farport.privileged, undefined)
  const [volume, home] = (farport.volumes[0] as string).split(':')
  assert.ok((volume as string) in compose.volumes)
  assert.equal(home, await the('VOLUME'))
  assert.equal(farport.volumes[1]?.split(':')[1], words(await the('CMD')).at(-1))
})
