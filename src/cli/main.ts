import { useCompileCache } from './compile-cache.ts'

// Before anything else is loaded: what comes first is compiled anew at each start.
useCompileCache()
await import('./program.ts')
