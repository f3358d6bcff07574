import { writeFile } from 'node:fs/promises'
import { freePort } from './free-port.ts'
import { listening } from './listening.ts'
import { PeerProgram } from './peer-program.ts'

/** A ser2net with one RFC 2217 port in front of `connector`, a gensio. */
export interface Ser2net extends AsyncDisposable {
  /** HOST:PORT. */
  readonly at: string
}

/** `configFile` is written here; `more` are further lines for the connection. */
export async function startSer2net(
  configFile: string,
  connector: string,
  more: readonly string[] = [],
): Promise<Ser2net> {
  const port = await freePort()
  const lines = [`accepter: telnet(rfc2217),tcp,127.0.0.1,${port}`, `connector: ${connector}`, ...more]
  await writeFile(configFile, `connection: &device\n${lines.map((line) => `  ${line}\n`).join('')}`)
  await using begun = new AsyncDisposableStack()
  begun.use(new PeerProgram('ser2net', ['-n', '-d', '-c', configFile]))
  await listening(port)
  const started = begun.move()
  return { at: `127.0.0.1:${port}`, [Symbol.asyncDispose]: () => started.disposeAsync() }
}
