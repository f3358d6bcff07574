import { chmod, cp, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Arch, packageJson, ROOT } from './bundle.ts'
import { addManual } from './man.ts'
import { run } from './run.ts'

const DEBIAN_ARCH: Record<Arch, string> = { x64: 'amd64', arm64: 'arm64' }

/** Where it goes in the package, of what is in deploy/. */
const FILES: Readonly<Record<string, string>> = {
  'systemd/farport.service': 'lib/systemd/system/farport.service',
  'systemd/farport-relay.service': 'lib/systemd/system/farport-relay.service',
  'systemd/farport-client.service': 'usr/lib/systemd/user/farport-client.service',
  'debian/farport.sysusers': 'usr/lib/sysusers.d/farport.conf',
  'debian/farport.tmpfiles': 'usr/lib/tmpfiles.d/farport.conf',
  'debian/60-farport.rules': 'lib/udev/rules.d/60-farport.rules',
  'debian/farport.yaml': 'etc/farport/farport.yaml',
}

const SCRIPTS = ['postinst', 'prerm', 'postrm']

/**
 * Makes a Debian package of a directory that holds the bundle, its native code and its runtime.
 * @returns the package's path
 */
export async function makeDeb(program: string, arch: Arch, directory: string): Promise<string> {
  const root = join(directory, `deb-${arch}`)
  await rm(root, { recursive: true, force: true })
  await mkdir(join(root, 'DEBIAN'), { recursive: true })
  await cp(program, join(root, 'usr/lib/farport'), { recursive: true })
  for (const [from, to] of Object.entries(FILES)) await put(join(ROOT, 'deploy', from), join(root, to))
  await cp(join(ROOT, 'docs'), join(root, 'usr/share/doc/farport'), { recursive: true })
  await cp(join(ROOT, 'LICENSE'), join(root, 'usr/share/doc/farport/copyright'))
  await addManual(root)
  await mkdir(join(root, 'usr/bin'))
  await writeFile(
    join(root, 'usr/bin/farport'),
    '#!/bin/sh\nexec /usr/lib/farport/node /usr/lib/farport/lib/main.js "$@"\n',
  )
  await writeFile(join(root, 'DEBIAN/control'), await control(root, arch))
  await writeFile(join(root, 'DEBIAN/conffiles'), '/etc/farport/farport.yaml\n')
  for (const script of SCRIPTS) await put(join(ROOT, 'deploy/debian', script), join(root, 'DEBIAN', script))
  await setModes(root)
  const deb = join(directory, `farport_${packageJson.version}_${DEBIAN_ARCH[arch]}.deb`)
  await run('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', root, deb], directory)
  await rm(root, { recursive: true })
  return deb
}

async function control(root: string, arch: Arch): Promise<string> {
  return [
    `Package: ${packageJson.name}`,
    `Version: ${packageJson.version}`,
    `Architecture: ${DEBIAN_ARCH[arch]}`,
    'Maintainer: farport <farport@localhost>',
    'Section: comm',
    'Priority: optional',
    // What Node and sodium-native ask of the C library.
    'Depends: libc6 (>= 2.33), libstdc++6, libgcc-s1, init-system-helpers, systemd | systemd-sysusers, systemd | systemd-tmpfiles',
    `Installed-Size: ${Math.ceil((await sizeOf(root)) / 1024)}`,
    `Description: ${packageJson.description.replace(/\.$/, '')}`,
    ' An agent shares its serial ports; a client anywhere uses each one as a local',
    ' virtual serial port, a local RFC 2217 port, raw TCP or standard input and',
    ' output. Comes with its own Node.js.',
    '',
  ].join('\n')
}

async function put(from: string, to: string): Promise<void> {
  await mkdir(join(to, '..'), { recursive: true })
  await cp(from, to)
}

/** Whatever umask the build had. */
async function setModes(directory: string): Promise<void> {
  await chmod(directory, 0o755)
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    const runs = entry.isDirectory() || /\/(usr\/bin\/.*|usr\/lib\/farport\/node|DEBIAN\/p.*)$/.test(path)
    await chmod(path, runs ? 0o755 : 0o644)
  }
}

async function sizeOf(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true })
  const files = entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size))
  return sizes.reduce((sum, size) => sum + size, 0)
}
