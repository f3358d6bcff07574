const LEAST = 16 * 1024
const MOST = 1024 * 1024

/**
 * How many bytes may be under way on a channel: twice what the line moves in a round trip, so that a full-speed transfer
 * never waits for an acknowledgement, and no more, so that bulk on one channel can't queue in front of a keystroke on
 * another. 16 KiB covers 921,600 baud at 87 ms.
 */
export function channelWindow(baudRate: number, roundTripMs: number): number {
  const bytesPerMs = baudRate / 10 / 1000
  return Math.min(MOST, Math.max(LEAST, Math.ceil(2 * roundTripMs * bytesPerMs)))
}
