import { mkdir, rm, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { type Arch, addNative, addRuntime, bundle, packageJson, ROOT } from './bundle.ts'
import { makeDeb } from './deb.ts'
import { makeNpmPackage } from './npm.ts'
import { run } from './run.ts'

/** `npm run package`: a bundle, a tar file and a Debian package with its own Node, and the npm package. */
const { values: flags } = parseArgs({
  options: { arch: { type: 'string', default: process.arch }, strip: { type: 'boolean', default: true } },
  allowNegative: true,
})
if (process.platform !== 'linux' || (flags.arch !== 'x64' && flags.arch !== 'arm64')) {
  process.stderr.write('package: made on Linux, with --arch x64 or --arch arm64\n')
  process.exit(2)
}
const arch: Arch = flags.arch

const dist = join(ROOT, 'dist')
const name = `farport-${packageJson.version}-linux-${arch}`
const program = join(dist, name)
await rm(program, { recursive: true, force: true })
await mkdir(program, { recursive: true })
await bundle(program)
await addNative(program, arch)
await addRuntime(program, arch)
// Symbols for debuggers are a tenth of it. Only for our own processor is there a strip everywhere.
if (flags.strip && arch === process.arch)
  await run('strip', ['--strip-unneeded', 'node'], program).catch(() =>
    process.stderr.write('package: no strip (binutils) here; the runtime stays as large as it came\n'),
  )
await run('tar', ['--owner=0', '--group=0', '-cJf', `${name}.tar.xz`, name], dist)
const made = [join(dist, `${name}.tar.xz`), await makeDeb(program, arch, dist), await makeNpmPackage(dist)]
for (const path of [program, ...made]) {
  const { size } = await stat(path)
  process.stdout.write(
    `${relative(process.cwd(), path)}${path === program ? '/' : ` ${(size / 1e6).toFixed(1)} MB`}\n`,
  )
}
