// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import type { PolicyConfig } from '../../src/policy/pod.ts'
import { defaultSelectors, type EnablementSelector, parseSelectors } from '../../src/policy/select.ts'
import { RemedyError } from '../../src/remedy.ts'
import { validateNetConf } from '../../src/schema/validators.gen.cjs'
import type { LoadOptions } from '../programs/settings.ts'

export interface AgentOptions {
  readonly nodeName: string
  /** Absent: the service account of the agent's own pod. */
  readonly kubeconfig?: string
  readonly load: LoadOptions
  /** Absent: the plugin is not put on the host. */
  readonly install?: { readonly binDir: string; readonly confDir: string; readonly confName?: string }
  /** JSON of the plugin's entry in the conflist. */
  readonly entry: string
  readonly selectors: readonly EnablementSelector[]
  readonly ztunnel: { readonly namespace: string; readonly serviceAccount: string }
  readonly socket: string
  readonly zds: string
  readonly enrollmentFile: string
  readonly http: { readonly host: string; readonly port: number }
  readonly reconcileSeconds: number
}

/** `namespace/name`. */
export function parseZtunnel(text: string): AgentOptions['ztunnel'] {
  const [namespace, serviceAccount, more] = text.split('/')
  if (namespace && serviceAccount && more === undefined) return { namespace, serviceAccount }
  throw new RemedyError(
    `--ztunnel: ${JSON.stringify(text)} is not NAMESPACE/SERVICEACCOUNT`,
    'such as: istio-system/ztunnel',
  )
}

/** `HOST:PORT`. */
export function parseHttp(text: string): AgentOptions['http'] {
  const [, host = '', port = ''] = /^(.+):(\d{1,5})$/.exec(text) ?? []
  if (host !== '' && Number(port) <= 65535)
    return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) }
  throw new RemedyError(`--http: ${JSON.stringify(text)} is not ADDRESS:PORT`, 'such as: 127.0.0.1:15014')
}

/** Names, separated by commas; an empty text: none. */
export function parseNamespaces(text: string): string[] {
  const names = text.trim() === '' ? [] : text.split(',').map((name) => name.trim())
  const wrong = names.find((name) => !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name))
  if (wrong === undefined) return names
  throw new RemedyError(
    `--exclude-namespaces: ${JSON.stringify(wrong)} is not the name of a namespace`,
    'such as: kube-system,monitoring',
  )
}

/** A file, or the YAML itself, as Istio's AMBIENT_ENABLEMENT_SELECTOR has it. */
export function readSelectors(given: string | undefined): readonly EnablementSelector[] {
  if (given === undefined || given.trim() === '') return defaultSelectors
  try {
    return parseSelectors(parse(given.startsWith('/') ? readFileSync(given, 'utf8') : given))
  } catch (cause) {
    const remedy = 'expected a list of podSelector and namespaceSelector, as in AMBIENT_ENABLEMENT_SELECTOR'
    throw new RemedyError(`--selectors: ${(cause as Error).message}`, remedy, { cause })
  }
}

/** How the entry says that pods are captured. The entry has been checked by `entryWith`. */
export function policyOf(entry: string): PolicyConfig {
  const config: Record<string, unknown> = { cniVersion: '1.1.0', name: 'any', ...JSON.parse(entry) }
  validateNetConf(config)
  return config as unknown as PolicyConfig
}
