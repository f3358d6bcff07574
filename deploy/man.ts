import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { ROOT } from './bundle.ts'

/** Where Debian has them, and the words by which farport prints them. */
const FILES: Readonly<Record<string, readonly string[]>> = {
  'usr/share/man/man1/farport.1.gz': ['manual', 'farport'],
  'usr/share/man/man5/farport.yaml.5.gz': ['manual', 'farport.yaml'],
  'usr/share/bash-completion/completions/farport': ['completion', 'bash'],
  'usr/share/zsh/vendor-completions/_farport': ['completion', 'zsh'],
  'usr/share/fish/vendor_completions.d/farport.fish': ['completion', 'fish'],
}

/** Puts manual pages and what shells need for Tab below `root`, as farport itself prints them. */
export async function addManual(root: string): Promise<void> {
  for (const [path, words] of Object.entries(FILES)) {
    const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, 'src/cli/main.ts'), ...words])
    const file = join(root, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, path.endsWith('.gz') ? gzipSync(stdout, { level: 9 }) : stdout)
  }
}
