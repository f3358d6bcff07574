import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { CaptureOptions } from '../capture/capture-file.ts'
import { FarportError } from '../errors.ts'
import type { Packing } from '../serial/packer.ts'
import { type Config, DEFAULT_LISTEN, type Endpoint, type Link, type Share } from './config.ts'
import { parseConfigFile } from './config-file.ts'
import type { ConfigFile } from './file-schema.ts'

const DEFAULT_STUN: [number, number] = [3478, 3479]
const DEFAULT_RESUME_MS = 30_000
const DEFAULT_CAPTURE = { format: 'hex', rotate: 16 * 1024 ** 2, keep: 5 } as const

/**
 * What a farport.yaml asks of a process.
 * @throws ConfigError for what stands in it; FarportError ERR_USAGE when it can't be read
 */
export async function loadConfig(path: string, home: string): Promise<Config> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new FarportError(
      'ERR_USAGE',
      missing
        ? `there is no ${path}: write one, as docs/config.md shows, or name another with --config`
        : `${path} can't be read: ${(cause as Error).message}`,
      { cause },
    )
  }
  return configOf(parseConfigFile(text, path), home)
}

function configOf(file: ConfigFile, home: string): Config {
  const { listen, announce, relays, relay, metrics } = file
  const { defaults = {}, ports = {}, links = [] } = file
  const shares = Object.entries(ports).map(([name, port]) => shareOf(name, { ...defaults, ...port }, home))
  // Who only uses ports of others calls them, and need not be called.
  const serves = shares.length > 0 || relay !== undefined
  return {
    home,
    listen: listen ?? (serves ? DEFAULT_LISTEN : []),
    ...(announce && { announce }),
    ...(relays && { relays }),
    ...(relay && { relay: relay.stun === false ? {} : { stunPorts: relay.stun ?? DEFAULT_STUN } }),
    ...(metrics && { metrics }),
    shares,
    links: links.map(linkOf),
    wait: true,
    lasting: true,
  }
}

type FilePort = NonNullable<ConfigFile['ports']>[string]

/** A port as the file has it, or the command line. */
export function shareOf(name: string, port: FilePort, home: string): Share {
  const { device, line, flow, banner, watchers, replay, reset, pack, capture } = port
  const { 'on-open': onOpen, 'on-close': onClose, 'idle-timeout': idleTimeoutMs } = port
  const { 'open-string': openString, 'close-string': closeString } = port
  return {
    name,
    device,
    ...(line && { line }),
    ...(flow && { flow }),
    ...(onOpen && { onOpen }),
    ...(onClose && { onClose }),
    ...(openString !== undefined && { openString }),
    ...(closeString !== undefined && { closeString }),
    ...(banner !== undefined && { banner }),
    ...(idleTimeoutMs !== undefined && { idleTimeoutMs }),
    ...(watchers !== undefined && { watchers }),
    ...(replay !== undefined && { replayBytes: replay }),
    ...(reset?.profile && { reset: reset.profile }),
    ...(pack && { pack: packingOf(pack) }),
    ...(capture && { capture: captureOf(capture, home) }),
  }
}

function packingOf({ gap, size, until }: NonNullable<FilePort['pack']>): Packing {
  return {
    ...(gap !== undefined && { gapMs: gap }),
    ...(size !== undefined && { sizeBytes: size }),
    ...(until !== undefined && { until }),
  }
}

function captureOf(capture: NonNullable<FilePort['capture']>, home: string): CaptureOptions {
  const { file, format, rotate, keep } = { ...DEFAULT_CAPTURE, ...capture }
  return { path: resolve(home, file), format, rotateBytes: rotate, keep }
}

type FileLink = NonNullable<ConfigFile['links']>[number]

function linkOf(link: FileLink): Link {
  const { port, resume = DEFAULT_RESUME_MS, watch, replay, line } = link
  return {
    ...port,
    endpoint: endpointOf(link),
    resumeMs: resume,
    wait: true,
    ...(watch && { mode: 'watch' as const }),
    ...(replay !== undefined && { replayBytes: replay }),
    ...(line && { line }),
  }
}

function endpointOf(link: FileLink): Endpoint {
  const { pty, rfc2217, raw, serial, mode, owner, group, 'modem-lines': modemLines = true } = link
  if (pty !== undefined) {
    const access = {
      ...(mode !== undefined && { mode }),
      ...(owner !== undefined && { owner }),
      ...(group !== undefined && { group }),
    }
    return { type: 'pty', path: pty, access }
  }
  if (rfc2217 !== undefined) return { type: 'rfc2217', ...rfc2217 }
  if (raw !== undefined) return { type: 'raw', ...raw }
  if (serial !== undefined) return { type: 'serial', device: serial, modemLines }
  throw new FarportError('ERR_INTERNAL', 'a link without an end got through')
}
