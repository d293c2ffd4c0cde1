// SPDX-License-Identifier: Apache-2.0
import { PolicyError } from '../policy/error.ts'
import { RemedyError } from '../remedy.ts'
import { CniCode, CniError, describe } from './errors.ts'

const rootHint = 'the container runtime must run the plugin as root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)'

/** What went wrong below a handler, as the runtime and its user are to read it. */
export function failure(what: string, cause: unknown): CniError {
  if (cause instanceof CniError || cause instanceof PolicyError) return CniError.from(cause)
  if (cause instanceof RemedyError) return remediable(what, cause)
  const code = (cause as { code?: unknown } | undefined)?.code
  if (code === 'EPERM' || code === 'EACCES') {
    return new CniError(CniCode.captureFailed, what, { details: `${describe(cause)}; ${rootHint}`, cause })
  }
  return new CniError(CniCode.captureFailed, what, { cause })
}

function remediable(what: string, cause: RemedyError): CniError {
  const { kind, message, remedy } = cause
  if (kind === 'state' || kind === 'impaired')
    return new CniError(CniCode.tryAgain, what, { details: `${message}; ${remedy}`, cause })
  const code = kind === 'own-netns' ? CniCode.invalidNetns : CniCode.invalidEnvironment
  return new CniError(code, `invalid CNI_NETNS: ${message}`, { details: remedy, cause })
}
