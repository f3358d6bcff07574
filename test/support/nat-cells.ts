import type { CrossingOptions } from './crossing.ts'

/** A pair of networks, and the best path there can be between them. */
export interface NatCell {
  readonly name: string
  readonly options: Omit<CrossingOptions, 'delayMs'>
  readonly expected: 'direct' | 'relayed'
}

/**
 * What two networks allow without anybody opening a port. A side whose NAT makes another port for each destination can only
 * call one that lets strangers in; two that filter by port must both know the other's.
 */
export const NAT_CELLS: readonly NatCell[] = [
  direct('public', 'public'),
  direct('public', 'fullcone'),
  direct('public', 'portrestricted'),
  direct('public', 'symmetric'),
  direct('public', 'udpblocked'),
  direct('fullcone', 'fullcone'),
  direct('fullcone', 'portrestricted'),
  direct('fullcone', 'symmetric'),
  direct('fullcone', 'udpblocked'),
  direct('portrestricted', 'portrestricted'),
  relayed('portrestricted', 'symmetric'),
  direct('portrestricted', 'udpblocked'),
  relayed('symmetric', 'symmetric'),
  relayed('symmetric', 'udpblocked'),
  direct('udpblocked', 'udpblocked'),
  {
    name: 'portrestricted: both on one LAN',
    options: { agent: 'portrestricted', client: 'same-lan' },
    expected: 'direct',
  },
  {
    name: 'portrestricted behind portrestricted × portrestricted',
    options: { agent: ['portrestricted', 'portrestricted'], client: 'portrestricted' },
    expected: 'direct',
  },
  {
    name: 'portrestricted behind symmetric × portrestricted',
    options: { agent: ['portrestricted', 'symmetric'], client: 'portrestricted' },
    expected: 'relayed',
  },
  {
    name: 'portrestricted × portrestricted, both reject',
    options: { agent: 'portrestricted', client: 'portrestricted', wan: 'reject' },
    expected: 'direct',
  },
  {
    name: 'portrestricted × portrestricted, both accept',
    options: { agent: 'portrestricted', client: 'portrestricted', wan: 'accept' },
    expected: 'direct',
  },
  {
    name: 'webonly × portrestricted, relay on 443 too',
    options: { agent: 'webonly', client: 'portrestricted', relayPorts: [4001, 443] },
    expected: 'relayed',
  },
]

function direct(agent: Plain, client: Plain): NatCell {
  return { name: `${agent} × ${client}`, options: { agent, client }, expected: 'direct' }
}

function relayed(agent: Plain, client: Plain): NatCell {
  return { ...direct(agent, client), expected: 'relayed' }
}

type Plain = Extract<CrossingOptions['agent'], string>
