import type { DaemonStatus } from '../../src/daemon/status.ts'

const ID = '12D3KooWAoq2Hx9ZSo9uMyQmLM5spuw1aZ269zuz57kFWmmc547m'
const OTHER = '12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust'

/** A farport that does nothing, */
export const idle: DaemonStatus = {
  version: '1.2.3',
  peerId: ID,
  pid: 1,
  uptimeMs: 0,
  addresses: [],
  ports: [],
  links: [],
  relays: [],
  peers: [],
}

/** and one that has everything a farport can have. */
export const busy: DaemonStatus = {
  ...idle,
  ports: [
    {
      name: 'gps',
      device: '/dev/serial/by-id/usb-secret-if00',
      state: 'open',
      holder: 'anna',
      watchers: 2,
      toDevice: 11,
      fromDevice: 22,
      lineErrors: { framing: 1, parity: 2, overrun: 3, break: 4 },
      opens: 5,
      sessions: { use: 6, watch: 7 },
      skipped: 8,
    },
  ],
  links: [
    {
      port: 'anna/plc',
      at: '/run/plc "1"\\',
      state: 'up',
      path: 'direct',
      roundTripMs: 12.5,
      toDevice: 33,
      fromDevice: 44,
      dropped: 9,
      reconnects: 10,
    },
  ],
  relays: [
    { address: `/ip4/192.0.2.1/tcp/4001/p2p/${OTHER}`, state: 'reserved', name: 'hub' },
    { address: `/ip4/192.0.2.2/tcp/4001/p2p/${OTHER}`, state: 'waiting', reason: 'away' },
  ],
  peers: [
    { name: 'anna', peerId: ID, path: 'relayed', address: '/ip4/192.0.2.9/tcp/1', roundTripMs: 40 },
    { name: OTHER, peerId: OTHER, path: 'direct', address: '/ip4/192.0.2.8/tcp/1', roundTripMs: 1 },
  ],
}
