import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ARCHIVE_KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** pyserial's source, which its package leaves out the tests of. Disposal removes it. */
export interface PyserialSource extends AsyncDisposable {
  readonly folder: string
  readonly version: string
}

/**
 * Fetches it with apt from the archive this Debian is installed from, checked against the archive's key. A state of apt's
 * of our own, since the machine's seldom knows of sources and is not ours to change.
 */
export async function fetchPyserialSource(): Promise<PyserialSource> {
  const folder = await mkdtemp(join(tmpdir(), 'farport-pyserial-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const [lists, cache, parts] = [join(folder, 'lists'), join(folder, 'cache'), join(folder, 'parts')]
    for (const path of [lists, cache, parts]) await mkdir(path)
    await writeFile(join(parts, 'debian.sources'), await sourcesOfThisDebian())
    const apt = (...args: string[]) =>
      run(
        'apt-get',
        [
          '--quiet',
          ...['Dir::Etc::SourceList=/dev/null', `Dir::Etc::SourceParts=${parts}`].flatMap((set) => [
            '-o',
            set,
          ]),
          ...[`Dir::State::Lists=${lists}`, `Dir::Cache=${cache}`].flatMap((set) => ['-o', set]),
          // Where root runs this, apt would read and write as a user who may not enter the folder.
          ...['-o', 'APT::Sandbox::User=root', ...args],
        ],
        { cwd: folder },
      )
    await apt('update')
    // What Debian adds to the source (`debian/`) is no part of the suite.
    await apt('source', '--download-only', '--tar-only', 'pyserial')
    const archive = (await readdir(folder)).find((name) => /^pyserial_.*\.orig\.tar\./.test(name))
    if (archive === undefined) throw new Error(`apt brought no pyserial_*.orig.tar into ${folder}`)
    await run('tar', ['-xf', archive, '--one-top-level=pyserial', '--strip-components=1'], { cwd: folder })
    const [, version = ''] = /_([^_]+)\.orig/.exec(archive) ?? []
    return { folder: join(folder, 'pyserial'), version, [Symbol.asyncDispose]: remove }
  } catch (error) {
    await remove()
    throw error
  }
}

/** The main archive of the release this machine runs, where the machine is set to get it from. */
async function sourcesOfThisDebian(): Promise<string> {
  const format = '$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(LABEL)'
  const { stdout } = await run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'])
  for (const line of stdout.split('\n')) {
    const [uri, codename, component, origin, label] = line.split('|')
    // Security updates have a label of their own, and the updates of a release a codename with a suffix.
    if (component !== 'main' || origin !== 'Debian' || label !== 'Debian' || codename?.includes('-')) continue
    return `Types: deb-src\nURIs: ${uri}\nSuites: ${codename}\nComponents: main\nSigned-By: ${ARCHIVE_KEYS}\n`
  }
  throw new Error('apt knows no Debian archive here: run apt-get update first')
}
