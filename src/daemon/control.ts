import { createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import { ControlConnection, type ControlMethod } from './control-connection.ts'
import { formatLine, MAX_ANSWER_BYTES } from './control-protocol.ts'
import { claimSocket, tooMany } from './control-socket.ts'

export interface ControlOptions {
  log: Logger
  /** How long a client may be connected and want nothing, in milliseconds. */
  idleMs?: number
}

/** How many clients are served at a time; more are told so and sent away. */
const MAX_CONNECTIONS = 16

/** How long handlers have to heed their signal when the daemon closes. */
const CLOSE_MS = 1_000

/**
 * Answers the other commands of this home's user, and makes sure that no second farport runs for the home. So begin with
 * it, before anything uses the home's key; methods wait for what is not built yet.
 * @throws FarportError ERR_IN_USE when another farport runs for the home, ERR_HOME when it can't hold a socket
 */
export async function listenControl(
  home: string,
  methods: Readonly<Record<string, ControlMethod>>,
  { log, idleMs = 10_000 }: ControlOptions,
): Promise<AsyncDisposable> {
  // A map, since a client chooses the name and an object has more names than its own.
  const byName = new Map(Object.entries(methods))
  const serving = new Map<Socket, Promise<void>>()

  const server = createServer((socket) => {
    socket.on('error', (error) => log.debug({ err: error }, 'a control connection failed'))
    if (serving.size >= MAX_CONNECTIONS) {
      const { code, message } = tooMany()
      // Into a socket's empty buffer it always fits, so this waits for nobody.
      socket.end(formatLine({ id: null, error: { code, message } }, MAX_ANSWER_BYTES), () => socket.destroy())
      return
    }
    const connection = new ControlConnection(socket, byName, log)
    socket.setTimeout(idleMs, () => connection.closeIfIdle())
    serving.set(
      socket,
      connection.serve().finally(() => serving.delete(socket)),
    )
  })

  const name = await claimSocket(home, server)
  server.on('error', (error) => log.warn({ err: error }, 'the control socket failed'))
  return {
    async [Symbol.asyncDispose]() {
      await name[Symbol.asyncDispose]()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      const ends = Promise.all(serving.values()).then(() => true)
      for (const socket of serving.keys()) socket.destroy()
      const timer = new AbortController()
      const inTime = await Promise.race([ends, sleep(CLOSE_MS, false, { signal: timer.signal })])
      timer.abort()
      if (!inTime) log.warn('a control request did not end when told to')
      await closed
    },
  }
}
