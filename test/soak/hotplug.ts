import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { linuxPort } from '../../src/device/linux-port.ts'
import { Pluggable } from '../support/pluggable.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { Ledger } from './ledger.ts'
import { FarportProcess } from './process.ts'

const WARM_UP_CYCLES = 50

/** Unplugs the device of a port that a program has, and plugs it in again, so many times. Bytes pass each time. */
export async function hotplug(cycles: number): Promise<void> {
  await using homes = await TwoHomes.make()
  const pluggable = homes.use(new Pluggable(homes.path('device')))
  let { master } = await pluggable.plug()
  await homes.grant('ports=*')
  await writeFile(
    join(homes.agentHome, 'farport.yaml'),
    `listen: [/ip4/127.0.0.1/tcp/0]\nports: {echo: ${pluggable.path}}\n`,
  )
  const link = homes.path('link')
  await writeFile(join(homes.clientHome, 'farport.yaml'), `links: [{port: a/echo, pty: ${link}}]\n`)
  await using agent = new FarportProcess('up', '--home', homes.agentHome)
  await homes.reach(((await agent.ready()) as unknown as { addresses: string[] }).addresses)
  await using client = new FarportProcess('up', '--home', homes.clientHome)
  await client.ready()
  const up = client.link('up')
  await using program = await linuxPort(link).open({ settings: { baudRate: 57_600 } })
  await up

  const ledger = new Ledger({ agent, client })
  for (let cycle = 0; cycle < WARM_UP_CYCLES + cycles; cycle++) {
    if (cycle === WARM_UP_CYCLES) await ledger.open()
    const gone = client.link('absent')
    await pluggable.unplug()
    await gone
    const back = client.link('up')
    const device = await pluggable.plug()
    master = device.master
    await back
    await passes(program, master, `to the device ${cycle}`)
    await passes(master, program, `from the device ${cycle}`)
    if (device.termios().ospeed !== 57_600) throw new Error(`cycle ${cycle}: the speed is not put back`)
  }
  await ledger.close()
}

async function passes(from: NodeJS.WritableStream, to: NodeJS.ReadableStream, text: string): Promise<void> {
  const signal = AbortSignal.timeout(10_000)
  let heard = ''
  from.write(text)
  while (heard.length < text.length) heard += String((await once(to, 'data', { signal }))[0])
  if (heard !== text) throw new Error(`"${text}" came as "${heard}"`)
}
