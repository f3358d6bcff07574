/**
 * The numbers of telnet. RFC 854 (commands), RFC 855 (subnegotiation), RFC 856, 857 and 858 (options).
 *
 *     IAC IAC                          the data byte 0xff
 *     IAC WILL|WONT|DO|DONT option     negotiation
 *     IAC SB option payload… IAC SE    subnegotiation; each 0xff in the payload is doubled
 *     IAC command                      everything else, 240 to 249
 */
export const SE = 240
/** Break: the one command, besides negotiation, that means something to a serial port. */
export const BRK = 243
/** Does nothing: what keeps a connection from looking dead. */
export const NOP = 241
/** “Are you there?” */
export const AYT = 246
export const SB = 250
export const WILL = 251
export const WONT = 252
export const DO = 253
export const DONT = 254
export const IAC = 255

export type Verb = typeof WILL | typeof WONT | typeof DO | typeof DONT

/** Option: eight-bit clean in the direction it is agreed for. */
export const BINARY = 0
/** Option: the sender of WILL echoes what it receives. */
export const ECHO = 1
/** Option: no go-ahead signals. */
export const SUPPRESS_GO_AHEAD = 3
