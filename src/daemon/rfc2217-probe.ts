/** The command line's door to the probe: it knows daemons and no sessions. */
export { type ProbeReport, probeAddress } from '../session/rfc2217-probe.ts'
