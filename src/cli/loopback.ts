import { InvalidArgumentError, Option } from 'commander'

/** Two farports on one machine find a direct path only when both are told so; see `farport demo`. */
export function loopbackOption(): Option {
  return new Option(
    '--loopback <seconds>',
    'for trying things out: peers run on this machine, too; stay on the relay for so long, then go direct',
  )
    .argParser((text) => {
      const value = Number(text)
      if (!(text !== '' && value >= 0 && value <= 60)) throw new InvalidArgumentError('Seconds, 0 to 60.')
      return value
    })
    .hideHelp()
}
