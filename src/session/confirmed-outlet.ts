import type { Conversation } from './conversation.ts'
import type { Outlet } from './rfc2217-port.ts'

/**
 * So much may be on its way to a server that has not said it came so far. Without a limit of our own the buffers of TCP
 * would hold megabytes for a device that does not take them, with every purge and every question behind them. A server
 * that reads ahead as far as this sees a purge although the device is stuck.
 */
const WINDOW_BYTES = 32 * 1024
/** It is asked this often how far it is. */
const PIECE_BYTES = WINDOW_BYTES / 4

interface Writing {
  rest: Buffer
  done: () => void
}

/** Sends data on a stream that knows no numbers, to a server that can be asked how far it has come. */
export function confirmedOutlet(conversation: Conversation): Outlet {
  const { stream } = conversation
  let unconfirmedBytes = 0
  let unasked = 0
  let writing: Writing | undefined

  function finish(): void {
    const done = writing?.done
    writing = undefined
    done?.()
  }

  function confirmed(bytes: number): void {
    unconfirmedBytes -= bytes
    pump()
  }

  function pump(): void {
    while (writing !== undefined && !conversation.suspended && unconfirmedBytes < WINDOW_BYTES) {
      const room = Math.min(PIECE_BYTES, WINDOW_BYTES - unconfirmedBytes)
      const piece = writing.rest.subarray(0, room)
      writing.rest = writing.rest.subarray(piece.length)
      unconfirmedBytes += piece.length
      send(piece)
      if (writing.rest.length === 0) finish()
    }
  }

  function send(piece: Buffer): void {
    const bytes = conversation.data(piece)
    if (!conversation.confirms) {
      stream.write(bytes, () => confirmed(piece.length))
      return
    }
    stream.write(bytes)
    unasked += piece.length
    // A keystroke is not worth a question, which would be longer than it.
    if (unasked < PIECE_BYTES) return
    const asked = unasked
    unasked = 0
    conversation.confirm().then(
      () => confirmed(asked),
      () => {},
    )
  }

  // What it has not taken is lost with it, as with any cable that is pulled.
  stream.once('close', finish)
  return {
    write(bytes, done) {
      writing = { rest: bytes, done }
      if (stream.destroyed) finish()
      else pump()
    },
    purge: finish,
    resume: pump,
    get unconfirmedBytes() {
      return unconfirmedBytes
    },
    end(done) {
      stream.once('close', done)
      // Some servers close the device when the stream ends, with what it has not taken yet.
      conversation.confirm().then(
        () => stream.end(),
        () => stream.destroy(),
      )
    },
  }
}
