import { once } from 'node:events'
import * as v from 'valibot'
import type { Link } from '../config/config.ts'
import { FarportError } from '../errors.ts'
import { RIGHTS } from '../trust/grants.ts'
import { parse } from '../wire/message.ts'
import type { ControlMethod } from './control-connection.ts'
import type { Daemon } from './daemon.ts'
import type { ReloadReport } from './status.ts'

/**
 * What other commands of this home's user ask of the daemon that runs for it. They wait for what is not built yet.
 * @param reload undefined for a daemon without a configuration file
 */
export function controlMethods(
  running: Promise<Daemon>,
  reload: (() => Promise<ReloadReport>) | undefined,
): Readonly<Record<string, ControlMethod>> {
  return {
    invite: async (params, { emit, signal }) =>
      await (await running).invite(parse(inviteSchema, params, 'invite'), emit, signal),
    rotate: async (params, { signal }) =>
      await (await running).rotate(parse(rotateSchema, params, 'rotation'), signal),
    status: async () => await (await running).status(),
    reload: async () => {
      if (reload !== undefined) return await reload()
      throw new FarportError(
        'ERR_USAGE',
        'the farport that runs here has no configuration file: it was started with flags, so start it anew',
      )
    },
    ports: async (params, { signal }) =>
      await (await running).portsOf(parse(peerSchema, params, 'question').peer, signal),
    ping: async (params, { signal }) =>
      await (await running).ping(parse(peerSchema, params, 'question').peer, signal),
    /** Links for as long as whoever asked stays: what they do is told, `ready` with where they are first. */
    connect: async (params, { emit, signal }) => {
      const links = parse(linksSchema, params, 'links').links as Link[]
      const added = await (await running).connect(links, emit, signal)
      await using _ = added
      emit({ event: 'ready', links: added.links })
      await Promise.race([once(signal, 'abort').catch(() => {}), added.ended])
    },
  }
}

const inviteSchema = v.object({
  form: v.picklist(['ticket', 'code']),
  ports: v.array(v.string()),
  may: v.array(v.picklist(RIGHTS)),
  expires: v.exactOptional(v.number()),
})

const rotateSchema = v.object({ now: v.boolean() })

const peerSchema = v.object({ peer: v.string() })

const MAX_LINKS = 256
const address = {
  host: v.string(),
  port: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(65_535)),
}
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

/** Checked for its shape: whoever may ask here is this home's user, who could as well start a farport with it. */
const linksSchema = v.object({
  links: v.pipe(
    v.array(
      v.looseObject({
        peer: v.string(),
        port: v.string(),
        resumeMs: count,
        endpoint: v.variant('type', [
          v.looseObject({ type: v.literal('pty'), path: v.string() }),
          v.object({ type: v.literal('rfc2217'), ...address }),
          v.object({ type: v.literal('raw'), ...address }),
          v.object({ type: v.literal('serial'), device: v.string(), modemLines: v.boolean() }),
        ]),
      }),
    ),
    v.maxLength(MAX_LINKS),
  ),
})
