// SPDX-License-Identifier: Apache-2.0
/** Why a request failed, and what to do about it. */
import { STATUS_CODES } from 'node:http'
import { ClusterError } from './error.ts'

/** What a request wants; verb and resource are those of RBAC. */
export interface Call {
  readonly verb: 'get' | 'list' | 'watch' | 'patch'
  readonly resource: 'pods' | 'pods/status' | 'namespaces'
  /** `pod shop/web-0`, `namespaces`. */
  readonly subject: string
}

/** Whom a request is sent to, and as whom. */
export interface Endpoint {
  readonly server: string
  /** Where the credentials come from: `the service account of the pod`, `kubeconfig FILE`. */
  readonly account: string
}

/** `text`: the body, which of a Kubernetes API server is a v1.Status. */
export function explainStatus(
  call: Call,
  { server, account }: Endpoint,
  { status, text, retryAfterMs = 0 }: { status: number; text: string; retryAfterMs?: number },
): ClusterError {
  const name = STATUS_CODES[status]
  const answer = `the API server ${server} answered ${status}${name === undefined ? '' : ` ${name}`}`
  const detail = statusMessage(text)
  const message = `cannot ${call.verb} ${call.subject}: ${answer}${detail === undefined ? '' : `: ${detail}`}`
  return new ClusterError(message, statusRemedy(status, call, { server, account }), { status, retryAfterMs })
}

function statusMessage(text: string): string | undefined {
  try {
    const { message } = JSON.parse(text)
    return typeof message === 'string' && message !== '' ? message : undefined
  } catch {
    return undefined
  }
}

function statusRemedy(status: number, { verb, resource }: Call, { server, account }: Endpoint): string {
  if (status === 401) {
    return `the credentials (${account}) are not accepted: they have expired, or belong to another cluster`
  }
  if (status === 403) {
    return `give the account of the agent (${account}) the right "${verb} ${resource}", as its ClusterRole does`
  }
  if (status === 429) return 'the API server limits requests: try again later, or see its priority levels'
  if (status >= 500) return `see how the API server is (kubectl get --raw='/readyz?verbose') and try again`
  return `see whether ${server} is a Kubernetes API server (kubectl version)`
}

/** `err`: of node:http, node:tls or the reading of credentials. */
export function explainFailure(call: Call, { server, account }: Endpoint, err: unknown): ClusterError {
  const { code = '' } = err as NodeJS.ErrnoException
  const text = `cannot ${call.verb} ${call.subject}: the connection to the API server ${server} failed: ${reasonOf(err)}`
  return new ClusterError(text, failureRemedy(code, { server, account }))
}

/** With its cause. The error of several attempts (IPv6, IPv4) has a code, and no message. */
function reasonOf(err: unknown): string {
  if (!(err instanceof Error)) return String(err)
  const { message, code, cause } = err as NodeJS.ErrnoException
  const reason = message === '' ? String(code) : message
  return cause === undefined ? reason : `${reason}: ${reasonOf(cause)}`
}

const tlsCode = /^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_MISMATCH|EPROTO)/

function failureRemedy(code: string, { server, account }: Endpoint): string {
  if (code === 'ECONNREFUSED') return `nothing listens at ${server}: see whether the API server runs`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `the name in ${server} cannot be resolved: see the resolvers of the node`
  }
  if (tlsCode.test(code)) return `see whether the certificate authority (${account}) is the one of ${server}`
  return `see whether this node reaches ${server}, and how the API server is`
}

/** Nothing came in the given time. */
export function explainTimeout(call: Call, { server, account }: Endpoint, ms: number): ClusterError {
  const text = `cannot ${call.verb} ${call.subject}: no answer of the API server ${server} within ${ms / 1000} s`
  return new ClusterError(text, failureRemedy('ETIMEDOUT', { server, account }))
}

/** An answer, with status 200, that is none of Kubernetes. */
export function explainAnswer(call: Call, { server, account }: Endpoint, err: unknown): ClusterError {
  const what = `the API server ${server} answered what cannot be read: ${reasonOf(err)}`
  const remedy = statusRemedy(200, call, { server, account })
  return new ClusterError(`cannot ${call.verb} ${call.subject}: ${what}`, remedy, { status: 200 })
}
