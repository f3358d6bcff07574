import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle, NATIVE, packageJson, ROOT } from './bundle.ts'
import { run } from './run.ts'

/**
 * Makes the package for npm: the bundle, since Node strips no types inside node_modules, and the types beside it. What is
 * native stays a dependency.
 * @returns the path of its tar file
 */
export async function makeNpmPackage(directory: string): Promise<string> {
  const root = join(directory, 'npm')
  await rm(root, { recursive: true, force: true })
  await mkdir(root, { recursive: true })
  await bundle(root, { forNpm: true })
  await cp(join(ROOT, 'bin/farport.cjs'), join(root, 'bin/farport.cjs'))
  for (const name of ['README.md', 'docs']) await cp(join(ROOT, name), join(root, name), { recursive: true })
  const types = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--rootDir', 'src']
  await run(
    join(ROOT, 'node_modules/.bin/tsc'),
    ['-p', join(ROOT, 'deploy/tsconfig.types.json'), ...types, '--outDir', join(root, 'types')],
    ROOT,
  )
  const { name, version, description, license, engines } = packageJson
  const manifest = {
    ...{ name, version, description, license, engines },
    type: 'module',
    bin: { farport: 'bin/farport.cjs' },
    exports: { '.': { types: './types/index.d.ts', default: './lib/index.js' } },
    dependencies: await dependencies(),
  }
  await writeFile(join(root, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`)
  await run('npm', ['pack', '--silent', '--pack-destination', directory], root)
  return join(directory, `${name}-${version}.tgz`)
}

/** The runtime, what is native, and what our types speak in; in the versions that were tested. */
async function dependencies(): Promise<Record<string, string>> {
  const lock = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string } | undefined>
  }
  const versions = ['node', ...NATIVE, 'pino', 'valibot'].map((name) => [
    name,
    lock.packages[`node_modules/${name}`]?.version,
  ])
  return Object.fromEntries(versions)
}
