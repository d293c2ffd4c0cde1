// SPDX-License-Identifier: Apache-2.0
/** What a kernel lacks, in words: found by trying, not by its version. */
import { release } from 'node:os'
import { LoadError } from '../../src/bpf/load-log.ts'
import { Netns } from '../../src/linux/netns.ts'
import { SystemError } from '../../src/native.ts'
import { RemedyError } from '../../src/remedy.ts'

const floor = 'Linux 5.15 or newer is needed'

/** What each program needs that an older kernel lacks, and since when it is there. */
const needs: readonly (readonly [program: RegExp, feature: string, since: string])[] = [
  [/getpeername/, 'cgroup/getpeername hooks', '5.8'],
  [/connect|sendmsg|recvmsg|bind|user/, 'bpf_get_netns_cookie() in socket address hooks', '5.7'],
  [/sockops|probes/, 'bpf_get_netns_cookie() in sockops', '5.15'],
  [/[gs]etsockopt/, 'bpf_get_netns_cookie() in socket option hooks', '5.15'],
  [/inbound/, 'sk_lookup', '5.9'],
]

/** Asked first: on a kernel that is too old for this, the first map fails, in a way that tells nothing. */
export function requireNetnsCookie(): void {
  try {
    using netns = Netns.open('/proc/self/ns/net')
    netns.cookie()
  } catch (err) {
    if (err instanceof SystemError && err.code === 'EPERM') throw notAllowed(err)
    if (!(err instanceof SystemError) || err.code !== 'ENOPROTOOPT') throw err
    throw new RemedyError(lacks('SO_NETNS_COOKIE (Linux 5.14)'), floor, { cause: err })
  }
}

/** A refusal by the kernel: what is missing, and for which program. */
export function explainLoadError(err: unknown): unknown {
  if (!(err instanceof LoadError)) return err
  if (err.code === 'EPERM' && !/unknown func|verif/i.test(err.log)) return notAllowed(err)
  const [, program = ''] = /prog '(\w+)': (?:BPF program load failed|failed to load)/.exec(err.log) ?? []
  const [, map = ''] = /map '(\w+)': failed to create/.exec(err.log) ?? []
  const refused = program ? `program ${program}` : map ? `map ${map}` : 'the programs'
  const feature = missingFeature(program, err.log)
  const message =
    feature === undefined
      ? `kernel ${release()} refuses ${refused}: ${err.message}`
      : `${lacks(feature)}, for ${refused}`
  const verdict = err.log.split('\n').slice(-8).join('\n')
  return new RemedyError(message, `${floor}; the kernel says:\n${verdict}`, { cause: err })
}

/** Undefined where the verifier dislikes something else than a call. */
function missingFeature(program: string, log: string): string | undefined {
  const [, feature = '', since] = needs.find(([pattern]) => pattern.test(program)) ?? []
  const need = since && `${feature} (Linux ${since})`
  const [, helper] = /(?:unknown func|cannot use helper) (\w+)#/.exec(log) ?? []
  if (helper !== undefined) return feature.startsWith(helper) ? need : `${helper}()`
  return /END PROG LOAD LOG/.test(log) && !/invalid func/.test(log) ? undefined : need
}

function lacks(feature: string): string {
  return `kernel ${release()} lacks a needed feature: ${feature}`
}

export function notAllowed(cause: unknown): RemedyError {
  const remedy = 'run it as root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, and without kernel lockdown'
  return new RemedyError('the kernel does not allow this process to load eBPF programs', remedy, { cause })
}
