import { realpath, stat } from 'node:fs/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { type DeviceLock, lockDevice } from './device-lock.ts'
import type { Libc } from './libc.ts'
import { describeProcess, portHolder, remedyFor } from './port-holder.ts'
import { type OpenedTty, openTty, type Wanted } from './tty.ts'

/** With the lock file that says so to other programs, where there can be one. */
export type LockedTty = OpenedTty & { lock?: DeviceLock }

/** Before the device is opened, since that moves its lines. @throws FarportError as openTty() does */
export async function openLocked(
  libc: Libc,
  path: string,
  wanted: Wanted,
  { lockFolder, log }: { lockFolder?: string; log?: Logger },
): Promise<LockedTty> {
  const isDevice = (await stat(path).catch(() => undefined))?.isCharacterDevice() ?? false
  // openTty() says what is wrong with it.
  if (!isDevice) return await openNamingHolder(libc, path, wanted)
  // The number of a PTY is another's a moment after it is gone, and a lock that is not gone by then would keep that one out.
  if (lockFolder === undefined && (await deviceAt(path)).startsWith('/dev/pts/'))
    return await openNamingHolder(libc, path, wanted)
  const taken = await lockDevice(path, lockFolder)
  switch (taken.state) {
    case 'held':
      throw new FarportError('ERR_PORT_BUSY', await heldMessage(path, taken))
    case 'unavailable':
      log?.info({ device: path, reason: taken.reason.message }, 'the device has no lock file')
      return await openNamingHolder(libc, path, wanted)
    case 'locked': {
      const { lock } = taken
      try {
        return { ...(await openNamingHolder(libc, path, wanted)), lock }
      } catch (error) {
        await lock.undo()
        throw error
      }
    }
  }
}

async function heldMessage(path: string, { file, pid }: { file: string; pid: number | undefined }) {
  if (pid === undefined)
    return `${path} is locked by ${file}, which does not say by which program: remove that file if there is none.`
  const holder = await describeProcess(pid)
  return `${path} is in use by ${holder}, says ${file}: ${remedyFor(holder, await deviceAt(path))}.`
}

async function openNamingHolder(libc: Libc, path: string, wanted: Wanted): Promise<OpenedTty> {
  try {
    return await openTty(libc, path, wanted)
  } catch (error) {
    if (!(error instanceof FarportError) || error.code !== 'ERR_PORT_BUSY') throw error
    const holder = await portHolder(path)
    const message =
      holder === undefined
        ? `${path} is in use by another program: \`sudo fuser -v ${path}\` says which.`
        : `${path} is in use by ${holder}: ${remedyFor(holder, await deviceAt(path))}.`
    throw new FarportError('ERR_PORT_BUSY', message, { cause: error })
  }
}

/** A link's name means nothing to the programs that hold the device. */
async function deviceAt(path: string): Promise<string> {
  return await realpath(path).catch(() => path)
}
