import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'

/** What is asked for, anew for each who asks, and how it is to be read. */
export interface Page {
  readonly contentType: string
  readonly text: string
}

export interface MetricsServerOptions {
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  readonly page: () => Promise<Page>
  readonly log: Logger
}

interface MetricsServer extends AsyncDisposable {
  /** Where it listens. */
  readonly host: string
  readonly port: number
}

const PATH = '/metrics'
/** Of them one is for Prometheus; the others may be slow, or mean no good. */
const MAX_CONNECTIONS = 16
const MAX_HEADER_BYTES = 8 * 1024
const HEADERS_TIMEOUT_MS = 5_000
const REQUEST_TIMEOUT_MS = 10_000
const IDLE_TIMEOUT_MS = 5_000
/** Also for one that asks and does not read. */
const SILENT_TIMEOUT_MS = 30_000

/**
 * Answers GET and HEAD of /metrics, and nothing else. Whoever comes while a page is being made gets the same one.
 * @throws FarportError ERR_IN_USE, ERR_USAGE when the address can't be listened on
 */
export async function listenMetrics({ host, port, page, log }: MetricsServerOptions): Promise<MetricsServer> {
  let making: Promise<Page> | undefined
  const current = () => {
    making ??= page().finally(() => {
      making = undefined
    })
    return making
  }
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void answer(request, response),
  )
  server.maxConnections = MAX_CONNECTIONS
  server.setTimeout(SILENT_TIMEOUT_MS, (socket) => socket.destroy())

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('Content-Type', 'text/plain; charset=utf-8')
    response.setHeader('Cache-Control', 'no-store')
    response.setHeader('X-Content-Type-Options', 'nosniff')
    const [path] = (request.url ?? '').split('?', 1)
    if (!isCalled(request.headers.host, host))
      response.writeHead(403).end('ask by an address, or by the name in farport.yaml\n')
    else if (path !== PATH) response.writeHead(404).end(`there is only ${PATH}\n`)
    else if (request.method !== 'GET' && request.method !== 'HEAD')
      response.writeHead(405, { Allow: 'GET, HEAD' }).end('only GET and HEAD\n')
    else
      try {
        const { contentType, text } = await current()
        response.setHeader('Content-Length', Buffer.byteLength(text))
        response.writeHead(200, { 'Content-Type': contentType }).end(text)
      } catch (error) {
        log.error({ err: error }, 'could not make the metrics')
        response.writeHead(500).end('the log of this farport says why\n')
      }
  }

  await listen(server, host, port)
  server.on('error', (error) => log.warn({ err: error }, 'the metrics server failed'))
  const bound = server.address() as AddressInfo
  return {
    host: bound.address,
    port: bound.port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

/**
 * Whether the request is for us by an address, or by the name we were given. Any other name may be that of a web page which
 * has its own name resolve to this machine, so that a browser here lets it read the answer (DNS rebinding).
 */
function isCalled(header: string | undefined, name: string): boolean {
  // Browsers always say it.
  if (header === undefined) return true
  const asked = header
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase()
  return isIP(asked) !== 0 || asked === 'localhost' || asked === name.toLowerCase()
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    server.listen({ host, port })
    await once(server, 'listening')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'EADDRINUSE')
      throw new FarportError('ERR_IN_USE', `${host}:${port} is taken by another program`, { cause })
    throw new FarportError('ERR_USAGE', `can't listen on ${host}:${port}: ${message}`, { cause })
  }
}
