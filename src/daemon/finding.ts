/** One thing that `farport doctor` has looked at. */
export interface Finding {
  readonly about:
    | 'node'
    | 'native'
    | 'key'
    | 'trust'
    | 'home'
    | 'disk'
    | 'clock'
    | 'config'
    | 'port'
    | 'service'
    | 'relay'
    | 'tcp'
    | 'udp'
    | 'path'
  /** `note` is worth knowing and nothing to mend at once; `bad` keeps something from working. */
  readonly verdict: 'ok' | 'note' | 'bad'
  /** A sentence without its end. */
  readonly text: string
  /** What to do about it, in the same form. */
  readonly remedy?: string
}
