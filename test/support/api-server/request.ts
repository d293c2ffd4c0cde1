// SPDX-License-Identifier: Apache-2.0
import type { Asked } from './faults.ts'

export interface ParsedRequest extends Asked {
  readonly namespace?: string
  /** Empty: of all. */
  readonly name: string
}

/** Undefined: this stand-in does not know what it is. */
export function parseRequest(method: string, target: string): ParsedRequest | undefined {
  const url = new URL(target, 'http://stand-in')
  const query = Object.fromEntries(url.searchParams)
  const [api, version, resource, first, second, third, fourth] = url.pathname
    .slice(1)
    .split('/')
    .map(decodeURIComponent)
  const depth = url.pathname.split('/').length - 1
  const asked = { path: url.pathname, query }
  if (api !== 'api' || version !== 'v1') return undefined
  if (method === 'GET' && depth === 3 && (resource === 'pods' || resource === 'namespaces')) {
    return { ...asked, name: '', resource, verb: query['watch'] === undefined ? 'list' : 'watch' }
  }
  if (resource !== 'namespaces' || first === undefined) return undefined
  if (method === 'GET' && depth === 4) return { ...asked, resource, verb: 'get', name: first }
  if (second !== 'pods' || third === undefined) return undefined
  const pod = { ...asked, namespace: first, name: third }
  if (method === 'GET' && depth === 6) return { ...pod, resource: 'pods', verb: 'get' }
  if (method === 'PATCH' && depth === 7 && fourth === 'status') {
    return { ...pod, resource: 'pods/status', verb: 'patch' }
  }
  return undefined
}
