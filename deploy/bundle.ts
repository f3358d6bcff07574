import { cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { run } from './run.ts'

export const ROOT = join(import.meta.dirname, '..')

export type Arch = 'x64' | 'arm64'

interface PackageJson {
  readonly name: string
  readonly version: string
  readonly description: string
  readonly license: string
  readonly engines: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
}

export const packageJson = createRequire(import.meta.url)('../package.json') as PackageJson

/** Packages with native code, which can't be bundled. serialport's are loaded on macOS and Windows only. */
export const NATIVE = ['koffi', 'serialport', '@serialport/bindings-cpp', 'sodium-native']

/**
 * Bundles the sources into `directory`/lib: a start reads a dozen files instead of a thousand. Split into chunks, so that
 * `--version` and the commands that ask a running farport load no libp2p.
 */
export async function bundle(directory: string, { forNpm = false } = {}): Promise<void> {
  await build({
    entryPoints: {
      main: join(ROOT, 'src/cli/main.ts'),
      ...(forNpm && { index: join(ROOT, 'src/index.ts') }),
    },
    outdir: join(directory, 'lib'),
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    external: forNpm ? NATIVE : NATIVE.filter((name) => name !== 'sodium-native'),
    plugins: forNpm ? [] : [sodiumBesideTheBundle],
    // What is CommonJS in the bundle asks for Node's own modules by `require`, which ES modules do not have.
    banner: {
      js: "import { createRequire as farportRequire } from 'node:module'; const require = farportRequire(import.meta.url);",
    },
    logLevel: 'warning',
  })
  await writeFile(join(directory, 'lib/package.json'), '{"type":"module"}\n')
  await cp(join(ROOT, 'LICENSE'), join(directory, 'LICENSE'))
}

/** sodium-native looks for its native half by a package with a dozen dependencies; ours is always at one place. */
const sodiumBesideTheBundle: Plugin = {
  name: 'sodium-beside-the-bundle',
  setup({ onResolve, onLoad }) {
    onLoad({ filter: /sodium-native\/binding\.js$/ }, () => ({
      contents: "module.exports = require('../native/sodium-native.node')",
    }))
    onResolve({ filter: /\.node$/ }, ({ path }) => ({ path, external: true }))
  },
}

/** Puts native code for one kind of machine beside the bundle. */
export async function addNative(directory: string, arch: Arch): Promise<void> {
  const sodium = join(ROOT, 'node_modules/sodium-native/prebuilds', `linux-${arch}`, 'sodium-native.node')
  await cp(sodium, join(directory, 'native/sodium-native.node'))
  await install(directory, arch, { koffi: packageJson.dependencies.koffi as string })
  const koffi = join(directory, 'node_modules/koffi')
  for (const sources of ['src/koffi/src/abi', 'vendor', 'doc', 'lib/native'])
    await rm(join(koffi, sources), { recursive: true, force: true })
  const sourceFiles = (await readdir(join(koffi, 'src/koffi/src'))).filter((name) => !/\.c?js$/.test(name))
  for (const name of sourceFiles) await rm(join(koffi, 'src/koffi/src', name))
}

/** Brings the runtime: machines come with another Node, or none. */
export async function addRuntime(directory: string, arch: Arch): Promise<void> {
  const staging = join(directory, '.runtime')
  const name = `node-linux-${arch}`
  await mkdir(staging, { recursive: true })
  await install(staging, arch, { [name]: packageJson.dependencies.node as string })
  await cp(join(staging, 'node_modules', name, 'bin/node'), join(directory, 'node'))
  await rm(staging, { recursive: true })
}

async function install(directory: string, arch: Arch, dependencies: Record<string, string>): Promise<void> {
  await writeFile(join(directory, 'package.json'), JSON.stringify({ private: true, dependencies }))
  await run(
    'npm',
    [
      // Forced, because npm has no other way to fetch what is for another processor.
      ...[
        'install',
        '--force',
        '--ignore-scripts',
        '--no-audit',
        '--no-fund',
        '--no-package-lock',
        '--loglevel=error',
      ],
      ...['--os=linux', `--cpu=${arch}`, '--libc=glibc'],
    ],
    directory,
  )
  await rm(join(directory, 'package.json'))
  await rm(join(directory, 'node_modules/.package-lock.json'), { force: true })
}
