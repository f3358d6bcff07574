import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Namespaces } from '../support/namespaces.ts'
import { until } from '../support/until.ts'

/** Where programs run. */
export interface Host {
  /** By which the other end of the path finds it. */
  readonly address: string
  launch(program: string, args: readonly string[], options: SpawnOptions): ChildProcess
  /** Waits until something there listens on a port. It does not connect: that would open the device behind it. */
  listens(port: number): Promise<void>
}

/** Between an application's machine, `near`, and a device's, `far`. */
export interface Path {
  readonly near: Host
  readonly far: Host
  /** The two machines, where they are not this one. */
  readonly hosts?: Namespaces
}

const here: Host = {
  address: '127.0.0.1',
  launch: (program, args, options) => spawn(program, args, options),
  listens: (port) => listens('self', port),
}

/** Both ends are this machine. */
export const LOOPBACK: Path = { near: here, far: here }

/** Between two hosts with network namespaces of their own, called `near` and `far`. */
export function between(hosts: Namespaces, addresses: { readonly near: string; readonly far: string }): Path {
  const host = (name: 'near' | 'far'): Host => ({
    address: addresses[name],
    launch: (program, args, options) => hosts.exec(name, [program, ...args], options),
    listens: (port) => listens(String(hosts.pid(name)), port),
  })
  return { near: host('near'), far: host('far'), hosts }
}

/** The kernel's own table, where the state of a listening socket is 0A. */
async function listens(process: string, port: number): Promise<void> {
  const line = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, '0')} [0-9A-F]+:0000 0A `)
  const tables = ['tcp', 'tcp6'].map((table) => `/proc/${process}/net/${table}`)
  await until(`something listens on port ${port}`, () =>
    tables.some((table) => line.test(readFileSync(table, 'latin1'))),
  )
}
