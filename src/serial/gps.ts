import type { Attachment, MemoryPort } from './memory-port.ts'

/*
 * NMEA 0183, as far as it is used here. A sentence is ASCII: "$", fields between commas, "*", two hexadecimal digits that
 * are the XOR of everything between "$" and "*", CR LF; 82 bytes at most.
 *
 *   $GPGGA  time, position, quality of the fix, satellites used, HDOP, height
 *   $GPGSA  the satellites used, and PDOP, HDOP, VDOP
 *   $GPGSV  the satellites in view, four to a sentence: number, elevation, azimuth, signal
 *   $GPRMC  time, position, speed in knots, course, date
 */

const SECOND_MS = 1000
const METRES_PER_DEGREE = 111_320
const METRES_PER_SECOND_IN_KNOTS = 3600 / 1852

/** A small boat that goes round in a circle, once in ten minutes, off Cuxhaven. */
const TRACK = { latitude: 53.9, longitude: 8.64, radiusMetres: 500, roundSeconds: 600, heightMetres: 3.2 }

/** Satellites: number, elevation and azimuth in degrees, signal to noise in dB. The first eight are in use. */
const SKY = [
  [2, 61, 292, 44],
  [5, 38, 201, 41],
  [7, 22, 55, 36],
  [13, 47, 118, 42],
  [15, 71, 160, 46],
  [18, 15, 250, 33],
  [21, 29, 310, 38],
  [30, 54, 78, 43],
  [26, 6, 19, 22],
  [29, 9, 342, 25],
] as const
const SATELLITES_USED = 8
const HDOP = '0.9'

/** What a receiver on the boat says at a time (milliseconds since 1970). */
export function nmeaSentences(timeMs: number): string[] {
  const { latitude, longitude, speedKnots, courseDegrees } = positionAt(timeMs)
  const [date, time] = utc(timeMs)
  const position = `${angle(latitude, 2, 'N', 'S')},${angle(longitude, 3, 'E', 'W')}`
  const used = SKY.slice(0, SATELLITES_USED)
  const numbers = Array.from({ length: 12 }, (_, k) => (used[k] ? two(used[k][0]) : '')).join(',')
  const pages = Math.ceil(SKY.length / 4)
  return [
    `GPGGA,${time},${position},1,${two(SATELLITES_USED)},${HDOP},${TRACK.heightMetres.toFixed(1)},M,46.9,M,,`,
    `GPGSA,A,3,${numbers},1.6,${HDOP},1.3`,
    ...Array.from({ length: pages }, (_, page) => {
      const satellites = SKY.slice(page * 4, page * 4 + 4)
      const fields = satellites.map(
        ([number, elevation, azimuth, signal]) =>
          `${two(number)},${two(elevation)},${String(azimuth).padStart(3, '0')},${two(signal)}`,
      )
      return `GPGSV,${pages},${page + 1},${two(SKY.length)},${fields.join(',')}`
    }),
    `GPRMC,${time},A,${position},${speedKnots.toFixed(1)},${courseDegrees.toFixed(1)},${date},,,A`,
  ].map(sentence)
}

/**
 * A GPS receiver that speaks on its own, `rateHz` times a second, on the whole second and its even parts. It does not
 * listen. What its port has no room for is lost and reported as an overrun, as on a UART: a receiver waits for nobody.
 */
export function gps(rateHz: number, clock: () => number): (port: MemoryPort) => Attachment {
  return (port) => {
    let timer = speakNext()

    function speakNext(): NodeJS.Timeout {
      // Rounded, because a timer may fire a little early, and the same second must not be told twice.
      const next = Math.round((clock() * rateHz) / SECOND_MS) + 1
      const timeMs = (next * SECOND_MS) / rateHz
      return setTimeout(() => {
        timer = speakNext()
        speak(Math.round(timeMs))
      }, timeMs - clock())
    }

    function speak(timeMs: number): void {
      const bytes = Buffer.from(nmeaSentences(timeMs).join(''), 'latin1')
      const lost = bytes.length - port.receive(bytes)
      if (lost > 0) port.report({ overrun: 1 })
    }

    port.drive({ cts: true, dsr: true, dcd: true })
    return {
      onBytes: (bytes) => bytes.length,
      onRoom: () => {},
      onOutputs: () => {},
      onBreak: () => {},
      onClose: () => clearTimeout(timer),
    }
  }
}

function positionAt(timeMs: number) {
  const turn = ((timeMs / SECOND_MS / TRACK.roundSeconds) % 1) * 2 * Math.PI
  const east = TRACK.radiusMetres * Math.sin(turn)
  const north = TRACK.radiusMetres * Math.cos(turn)
  const speed = (2 * Math.PI * TRACK.radiusMetres) / TRACK.roundSeconds
  return {
    latitude: TRACK.latitude + north / METRES_PER_DEGREE,
    longitude: TRACK.longitude + east / (METRES_PER_DEGREE * Math.cos((TRACK.latitude * Math.PI) / 180)),
    speedKnots: speed * METRES_PER_SECOND_IN_KNOTS,
    // North of the centre the boat heads east, and it goes on clockwise.
    courseDegrees: ((turn * 180) / Math.PI + 90) % 360,
  }
}

function sentence(body: string): string {
  let checksum = 0
  for (const character of body) checksum ^= character.charCodeAt(0)
  return `$${body}*${checksum.toString(16).toUpperCase().padStart(2, '0')}\r\n`
}

/** "ddmmyy" and "hhmmss.ss". */
function utc(timeMs: number): [date: string, time: string] {
  const [, year, month, day, hour, minute, second, hundredths] =
    /^\d\d(\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d\d)/.exec(new Date(timeMs).toISOString()) ?? []
  return [`${day}${month}${year}`, `${hour}${minute}${second}.${hundredths}`]
}

/** Degrees and minutes in one number, "5354.1234,N"; `digits` is how many the degrees have. */
function angle(degrees: number, digits: number, positive: string, negative: string): string {
  // Rounded before it is split, so that no minute ever reads 60.
  const tenThousandths = Math.round(Math.abs(degrees) * 60 * 10_000)
  const whole = Math.floor(tenThousandths / 600_000)
  const minutes = ((tenThousandths % 600_000) / 10_000).toFixed(4).padStart(7, '0')
  return `${String(whole).padStart(digits, '0')}${minutes},${degrees < 0 ? negative : positive}`
}

function two(value: number): string {
  return String(value).padStart(2, '0')
}
