/** What a device sent, or was sent. */
export type Direction = 'fromDevice' | 'toDevice'

export interface Piece {
  /** Milliseconds since 1970, with their fractions. */
  readonly atMs: number
  readonly direction: Direction
  readonly bytes: Uint8Array
}

/** Writes one file of a capture. What each call gives stands behind what was given before. */
export interface CaptureWriter {
  start(): Buffer
  piece(piece: Piece): Buffer
  /** So many bytes are missing here: they came faster than they could be written, or when the disk was full. */
  lost(atMs: number, bytes: number): Buffer
  end(): Buffer
}

/** Takes a capture cut anywhere and gives the pieces in it. Both throw CaptureError; the reader is spent then. */
export interface CaptureReader {
  push(bytes: Uint8Array): Iterable<Piece>
  /** @throws CaptureError when the end is missing */
  end(): void
}

/** A capture is damaged, cut short, or none of ours. */
export class CaptureError extends Error {
  override readonly name = 'CaptureError'
}

/** Longer pieces are written as several. */
export const MAX_PIECE_BYTES = 16 * 1024
