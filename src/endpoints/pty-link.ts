import { randomBytes } from 'node:crypto'
import { lstatSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { FarportError } from '../errors.ts'

/**
 * Makes `link` point to the PTY at `target`, in one step for whoever looks. What is there already is replaced only when it
 * is a symlink that leads nowhere, that a farport which died left behind, or that points to `replacing`, our own last PTY.
 * @throws FarportError ERR_IN_USE when something else has the name, ERR_USAGE when no link can be made there
 */
export function placeLink(link: string, target: string, replacing?: string): void {
  try {
    // Not a check first and then a rename: of two farports that want a free name, one fails here.
    symlinkSync(target, link)
    return
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cannotLink(link, cause)
  }
  mustBeReplaceable(link, replacing)
  const temporary = `${link}.${randomBytes(6).toString('hex')}`
  try {
    symlinkSync(target, temporary)
    renameSync(temporary, link)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw cannotLink(link, cause)
  }
}

/** Removes `link` if it still points to `target`; somebody else's stays. */
export function removeLink(link: string, target: string): void {
  const itself = lstatSync(link, { throwIfNoEntry: false })
  if (itself?.isSymbolicLink() && readlinkSync(link) === target) rmSync(link, { force: true })
}

function mustBeReplaceable(link: string, replacing: string | undefined): void {
  const itself = lstatSync(link, { throwIfNoEntry: false })
  if (itself === undefined) return
  if (!itself.isSymbolicLink())
    throw new FarportError('ERR_IN_USE', `${link} exists and is not a link of farport: choose another name`)
  const target = readlinkSync(link)
  if (target === replacing) return
  const pointsTo = statSync(link, { throwIfNoEntry: false })
  if (pointsTo === undefined) return
  // Numbers of PTYs are used again: a PTY younger than the link is some other terminal, and whoever made the link is gone.
  if (/^\/dev\/pts\/\d+$/.test(target) && pointsTo.ctimeMs > itself.mtimeMs) return
  throw new FarportError(
    'ERR_IN_USE',
    `${link} is a link to ${target}, which is in use: end the program that made it, or choose another name`,
  )
}

function cannotLink(link: string, cause: unknown): FarportError {
  const { code, message } = cause as NodeJS.ErrnoException
  const reason = code === 'ENOENT' ? `there is no directory ${dirname(link)}` : message
  return new FarportError('ERR_USAGE', `can't make the link ${link}: ${reason}`, { cause })
}
