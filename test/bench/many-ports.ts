import { TwoHomes } from '../support/two-homes.ts'
import { cpuMs, measure, type Rig } from './rig.ts'

const PORTS = 16
const SECONDS = 15
/** 115200 baud, ten bits to a byte. */
const BYTES_PER_SECOND = 11_520

/** What an agent and a client cost while sixteen programs talk to sixteen devices as fast as their lines go. */
export async function sixteenPorts(rig: Rig): Promise<{ agentPercent: number; clientPercent: number }> {
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const names = Array.from({ length: PORTS }, (_, i) => `p${i}`)
  const devices = await Promise.all(names.map((name) => rig.device(name)))
  const agent = await homes.share(...names.map((name, i) => `${devices[i]}=${name}`))
  const ptys = names.map((name) => rig.path(`${name}-app`))
  const ends = ptys.flatMap((pty) => ['--pty', pty])
  const client = await homes.connect(...names.map((name) => `a/${name}`), ...ends)
  await measure('paced', 2, BYTES_PER_SECOND, ...ptys)
  const before = [agent.pid, client.pid].map(cpuMs)
  const { sent, got, wrong } = await measure<{ sent: number; got: number; wrong: number }>(
    'paced',
    SECONDS,
    BYTES_PER_SECOND,
    ...ptys,
  )
  if (wrong > 0 || got !== sent || sent !== PORTS * SECONDS * BYTES_PER_SECOND)
    throw new Error(`sixteen ports: ${sent} bytes sent, ${got} came back, ${wrong} pieces wrong`)
  const [agentPercent = 0, clientPercent = 0] = [agent.pid, client.pid].map((pid, i) =>
    Number(((cpuMs(pid) - (before[i] ?? 0)) / (10 * SECONDS)).toFixed(1)),
  )
  return { agentPercent, clientPercent }
}
