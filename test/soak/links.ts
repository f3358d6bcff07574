import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { linuxPort } from '../../src/device/linux-port.ts'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { Ledger } from './ledger.ts'
import { FarportProcess } from './process.ts'

/** Until the memory of the process no longer grows: its allocators take what they need for the peaks. */
const WARM_UP_CYCLES = 10_000

/** A program comes to a link and leaves it, so many times: at a raw TCP port first, then at a PTY. */
export async function links(cycles: number): Promise<void> {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  await writeFile(
    join(homes.agentHome, 'farport.yaml'),
    'listen: [/ip4/127.0.0.1/tcp/0]\nports: {one: "simulated:echo", two: "simulated:echo"}\n',
  )
  const path = homes.path('link')
  await writeFile(
    join(homes.clientHome, 'farport.yaml'),
    `links: [{port: a/one, raw: ":0"}, {port: a/two, pty: ${path}}]\n`,
  )
  await using agent = new FarportProcess('up', '--home', homes.agentHome)
  await homes.reach(((await agent.ready()) as unknown as { addresses: string[] }).addresses)
  await using client = new FarportProcess('up', '--home', homes.clientHome)
  const { links } = (await client.ready()) as unknown as { links: { at: string }[] }
  const tcpPort = Number(links[0]?.at.split(':')[1])

  const ends: Record<string, () => Promise<Duplex>> = {
    'raw TCP': async () => {
      const socket = connect(tcpPort, '127.0.0.1')
      await once(socket, 'connect')
      return socket
    },
    PTY: () => linuxPort(path).open({}),
  }
  for (const [name, open] of Object.entries(ends)) {
    console.log(`${cycles} programs at the ${name} end`)
    const ledger = new Ledger({ agent, client })
    const startedAt = performance.now()
    for (let cycle = 0; cycle < WARM_UP_CYCLES + cycles; cycle++) {
      if (cycle === WARM_UP_CYCLES) await ledger.open()
      await visit(await open(), `${name} ${cycle}`)
    }
    await ledger.close()
    const { stdout } = await farport(['status', '--json', '--home', homes.agentHome])
    const { ports } = JSON.parse(stdout) as { ports: { name: string; sessions: { use: number } }[] }
    console.log(
      `sessions at the agent: ${ports.map((port) => `${port.name} ${port.sessions.use}`).join(', ')}`,
    )
    console.log(`${((performance.now() - startedAt) / (WARM_UP_CYCLES + cycles)).toFixed(1)} ms each`)
  }
}

/** One program: its bytes come back, and it leaves. */
async function visit(program: Duplex, text: string): Promise<void> {
  const signal = AbortSignal.timeout(20_000)
  let heard = ''
  program.write(text)
  while (heard.length < text.length) heard += String((await once(program, 'data', { signal }))[0])
  if (heard !== text) throw new Error(`"${text}" came back as "${heard}"`)
  const closed = once(program, 'close')
  program.destroy()
  await closed
}
