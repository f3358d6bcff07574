import type { SerialPort } from '../serial/port.ts'

/** How an endpoint gets at the port it stands for. The port reconnects by itself; opening it may still be refused. */
export type OpenPort = (signal: AbortSignal) => Promise<SerialPort>

/** A local place where programs meet a port. */
export interface LocalEndpoint extends AsyncDisposable {
  /** Where programs find it: a path, `127.0.0.1:4000`, or `-` for standard input and output. */
  readonly address: string
  /** Resolves when the endpoint is over by itself, as standard input and output may be. */
  readonly ended: Promise<void>
}
