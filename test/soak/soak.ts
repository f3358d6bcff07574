/**
 * What only shows after a long time: `npm run soak -- hotplug|links|kill [COUNT]`. The first two print what the processes
 * hold at the start and at the end, and fail when that has grown; the last one, how farport comes back.
 */
import { hotplug } from './hotplug.ts'
import { kill } from './kill.ts'
import { links } from './links.ts'

const SOAKS: Readonly<Record<string, { run: (count: number) => Promise<void>; count: number }>> = {
  hotplug: { run: hotplug, count: 1_000 },
  links: { run: links, count: 10_000 },
  kill: { run: kill, count: 200 },
}

const [name = '', count] = process.argv.slice(2)
const soak = SOAKS[name]
if (soak === undefined) {
  console.error(`which one? ${Object.keys(SOAKS).join(', ')}`)
  process.exitCode = 2
} else {
  const many = count === undefined ? soak.count : Number(count)
  const startedAt = performance.now()
  await soak.run(many)
  console.log(
    `${name}: ${many} times in ${Math.round((performance.now() - startedAt) / 1000)} s, and all is well`,
  )
}
