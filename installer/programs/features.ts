// SPDX-License-Identifier: Apache-2.0
import { release } from 'node:os'
import { LoadError } from '../../src/bpf/load-log.ts'
import { RemedyError } from '../../src/remedy.ts'

/** What each program needs that an older kernel lacks, and since when it is there. */
const needs: readonly (readonly [program: RegExp, feature: string, since: string])[] = [
  [/getpeername/, 'cgroup/getpeername hooks', '5.8'],
  [/connect|sendmsg|recvmsg|bind/, 'bpf_get_netns_cookie() in socket address hooks', '5.7'],
  [/sockops|probes/, 'bpf_get_netns_cookie() in sockops', '5.15'],
  [/getsockopt/, 'bpf_get_netns_cookie() in cgroup/getsockopt', '5.15'],
  [/inbound/, 'sk_lookup', '5.9'],
]

/** A refusal by the kernel, in words: what is missing, found by trying. */
export function explainLoadError(err: unknown): unknown {
  if (!(err instanceof LoadError)) return err
  if (err.code === 'EPERM' && !/unknown func|verif/i.test(err.log)) return notAllowed(err)
  const [, program = ''] = /prog '(\w+)': (?:BPF program load failed|failed to load)/.exec(err.log) ?? []
  const [, map = ''] = /map '(\w+)': failed to create/.exec(err.log) ?? []
  const need = needs.find(([pattern]) => pattern.test(program))
  const what = need === undefined ? err.message : `${need[1]} (Linux ${need[2]})`
  const where = program === '' ? map && `map ${map}` : `program ${program}`
  const message = `kernel ${release()} lacks a needed feature: ${what}${where && `, for ${where}`}`
  const verdict = err.log.split('\n').slice(-8).join('\n')
  return new RemedyError(message, `Linux 5.15 or newer is needed; the kernel says:\n${verdict}`, {
    cause: err,
  })
}

export function notAllowed(cause: unknown): RemedyError {
  const remedy = 'run it as root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, and without kernel lockdown'
  return new RemedyError('the kernel does not allow this process to load eBPF programs', remedy, { cause })
}
