// SPDX-License-Identifier: Apache-2.0
/** A pod of mode sidecar: its annotations, its users, and which way a connection of it went. */
import type { Conf } from '../support/ambridge.ts'
import { type EnrollOptions, ipOf, type Mesh } from '../support/mesh.ts'
import type { LanHost } from '../support/netns.ts'
import { type ConnectResult, connect } from '../support/sock.ts'
import { proxyUser } from './sidecar.ts'

export const traffic = 'traffic.sidecar.istio.io'

/** Options of `sock connect`. */
export const app = ['--uid', '1000', '--gid', '1000']
export const onlyUid = ['--uid', String(proxyUser), '--gid', '1000']
export const onlyGid = ['--uid', '1000', '--gid', String(proxyUser)]

export interface SidecarPodOptions {
  /** Keys without a slash are below traffic.sidecar.istio.io. */
  readonly annotations?: Readonly<Record<string, string>>
  readonly conf?: Conf
}

export function sidecarOptions({ annotations = {}, conf = {} }: SidecarPodOptions = {}): EnrollOptions {
  const full = Object.entries(annotations).map(([key, value]) => {
    return [key.includes('/') ? key : `${traffic}/${key}`, value]
  })
  return {
    conf: { mode: 'sidecar', dnsCapture: true, ...conf },
    annotations: { 'sidecar.istio.io/status': '{}', ...Object.fromEntries(full) },
  }
}

/** Enrolled until disposed. Envoy may stay: its listeners are known by the netns. */
export async function enrolled(
  mesh: Mesh,
  pod: LanHost,
  options: SidecarPodOptions = {},
): Promise<AsyncDisposable> {
  const attachment = await mesh.enroll(pod, sidecarOptions(options))
  return { [Symbol.asyncDispose]: () => mesh.withdraw(attachment) }
}

/** `outbound`, `inbound`: the listener of Envoy that handled it last; `direct`: none; or an errno's name. */
export function pathOf({ ok, error, local, reply }: ConnectResult): string {
  if (!ok || !reply) return error ?? 'no reply'
  if (reply.peer === local) return 'direct'
  return ['127.0.0.6', '::6'].includes(ipOf(reply.peer)) ? 'inbound' : 'outbound'
}

/** Which way a connection that a program of `host` makes goes. */
export async function path(
  mesh: Mesh,
  host: LanHost,
  address: string,
  port: number,
  options: readonly string[] = [],
): Promise<string> {
  return pathOf(await connect(mesh.at(host), address, port, options))
}
