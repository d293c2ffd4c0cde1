// SPDX-License-Identifier: Apache-2.0
/** Every way in which an ADD can fail for the agent's sake, with what the plugin then prints. docs/AGENT.md has the same table. */
import type { NodeEnrollment } from '../../src/agent-api/enrollment-file.ts'
import { PolicyError } from '../../src/policy/error.ts'
import { parseSelectors } from '../../src/policy/select.ts'
import { RemedyError } from '../../src/remedy.ts'

/** What an agent does with a request. */
export type Behaviour =
  /** There is no socket: for `activate`, any more. */
  | 'absent'
  /** There is a socket, and nobody listens. */
  | 'dead'
  | 'leaves'
  | 'silent'
  /** Its packet, as JSON. */
  | { readonly says: unknown }
  /** What a handler of the real server throws. */
  | { readonly throws: Error }

export interface AgentError {
  readonly when: string
  readonly decide?: Behaviour
  readonly activate?: Behaviour
  /** Of the enrollment file; absent: there is none. */
  readonly file?: unknown
  /** Not root's alone. */
  readonly fileMode?: number
  readonly code: number
  readonly msg: string
  /** {socket} and {file}: paths in the configuration. */
  readonly details: string
}

export const pod = { namespace: 'shop', name: 'cart', uid: 'b4a7f1de-6a44-4e0e-9e1c-3b1f6c6f7f10' }

/** Enrolled are the pods of namespaces with a label. */
export function enrollmentFile(more: Partial<NodeEnrollment> = {}): NodeEnrollment & { version: number } {
  return {
    version: 1,
    node: 'node-1',
    selectors: parseSelectors([{ namespaceSelector: { matchLabels: { mesh: 'yes' } } }]),
    excludeNamespaces: ['kube-system'],
    sidecar: false,
    namespaces: { shop: { mesh: 'yes' }, plain: {} },
    pods: {
      'shop/cart': { uids: [pod.uid, 'hash'], enroll: true, reason: 'a selector matches its labels' },
      'shop/job': { uids: ['job-uid'], enroll: false, reason: 'spec.hostNetwork' },
    },
    ...more,
  }
}

const noUid = enrollmentFile({ pods: {} })
const again = 'start the ambridge agent on this node'
const start = `${again}, or set enrollment.source to "static"`
const log = 'the log of the ambridge agent on this node has more; the pod is tried again'
const sameVersion = 'use plugin and agent of the same version'
const newer = 'the agent speaks version 2, this plugin 1; the upgrade is under way, the pod is tried again'
const virtual = 'istio.io/reroute-virtual-interfaces'
const refusal = new PolicyError(virtual, 'eth1', 'remove the annotation or leave the pod out of the mesh')
const refused = {
  ...{ code: 101, msg: `cannot capture a pod with annotation ${virtual}: "eth1"` },
  details: 'remove the annotation or leave the pod out of the mesh',
}

const undecided = { code: 11, msg: 'cannot tell whether pod shop/cart is enrolled' }
const failed = { code: 11, msg: 'cannot enroll pod shop/cart' }

/** The last time that an agent wrote the file is told by the file. */
const away: readonly AgentError[] = [
  { when: 'the agent was never there', file: undefined, details: '{file} is not there' },
  { when: 'its file is broken', file: '{', details: '{file} is not understood: it is not JSON' },
  {
    ...{ when: 'its file has wrong fields', file: { ...enrollmentFile(), pods: { 'shop/cart': {} } } },
    details: "{file} is not understood: pods.shop/cart must have required property 'uids'",
  },
  {
    ...{ when: 'its file has wrong selectors', file: { ...enrollmentFile(), selectors: [{ pod: 1 }] } },
    details:
      '{file} is not understood: selectors[0].pod is unknown; allowed are podSelector and namespaceSelector',
  },
  {
    ...{ when: 'its file is of another version', file: { version: 2 } },
    details: '{file} has version 2, this plugin reads 1',
  },
  {
    ...{ when: 'others may have written its file', file: enrollmentFile(), fileMode: 0o660 },
    details: '{file} is not a file that root alone can write',
  },
  {
    ...{ when: 'its file does not have the pod', file: noUid },
    details: '{file} does not tell: the pod is not in it, and pods of namespace shop may be selected',
  },
  {
    ...{ when: 'its file does not have the namespace', file: { ...noUid, namespaces: {} } },
    details: '{file} does not tell: the pod is not in it, and namespace shop is not in it',
  },
  {
    ...{ when: 'its file says that sidecars are captured', file: { ...noUid, sidecar: true } },
    details: '{file} does not tell: the pod is not in it, and it may have a sidecar',
  },
].map((row) => ({
  ...{ ...row, ...undecided, decide: 'absent' },
  details: `no agent: {socket} is not there; ${row.details}; ${start}`,
}))

const noAnswer: readonly AgentError[] = [
  {
    ...{
      when: 'its file says that the pod is enrolled',
      file: enrollmentFile(),
      decide: 'absent',
      ...failed,
    },
    details: `no agent: {socket} is not there; {file}: the pod is enrolled, a selector matches its labels; ${start}`,
  },
  {
    ...{ when: 'it died', decide: 'dead', ...undecided },
    details: `no agent listens on {socket}; {file} is not there; ${again}`,
  },
  {
    ...{ when: 'it ends without an answer', decide: 'leaves', ...undecided },
    details: `the agent on {socket} closed the connection without an answer; {file} is not there; ${log}`,
  },
  {
    ...{ when: 'it hangs', decide: 'silent', ...undecided },
    details: `the agent on {socket} has not answered within 5 s; {file} is not there; ${log}`,
  },
]

/** The file is not looked at: there is an agent. */
const answers: readonly AgentError[] = [
  {
    ...{ when: 'its answer is not JSON', decide: { says: undefined }, ...undecided },
    details: `the answer of the agent is not understood: it is not JSON; ${sameVersion}`,
  },
  {
    ...{ when: 'its answer has wrong fields', ...undecided },
    decide: { says: { version: 1, decision: { enroll: 'yes', reason: '', warnings: [] } } },
    details: `the answer of the agent is not understood: decision.enroll must be boolean; ${sameVersion}`,
  },
  {
    ...{ when: 'it answers something else', decide: { says: { version: 1, activated: true } }, ...undecided },
    details: `the answer of the agent is not understood: it is one to another question; ${sameVersion}`,
  },
  {
    ...{ when: 'it is newer', decide: { says: { version: 2, news: {} } }, ...undecided },
    details: newer,
  },
  {
    ...{ when: 'it cannot tell', ...undecided },
    decide: { throws: new RemedyError('the API server answers 403', 'grant the agent: get pods') },
    details: 'the API server answers 403; grant the agent: get pods',
  },
  {
    ...{ when: 'it has a fault', decide: { throws: new TypeError('x is not a function') }, ...undecided },
    details: 'the agent failed: x is not a function; the log of the ambridge agent has more',
  },
  { when: 'the pod asks for what cannot be given', decide: { throws: refusal }, ...refused },
]

const activation: readonly AgentError[] = [
  {
    ...{ when: 'then it is gone', activate: 'absent', ...failed },
    details: `no agent: {socket} is not there; ${start}`,
  },
  {
    ...{ when: 'then it died', activate: 'dead', ...failed },
    details: `no agent listens on {socket}; ${again}`,
  },
  {
    ...{ when: 'then it ends without an answer', activate: 'leaves', ...failed },
    details: `the agent on {socket} closed the connection without an answer; ${log}`,
  },
  {
    ...{ when: 'then it hangs', activate: 'silent', ...failed },
    details: `the agent on {socket} has not answered within 15 s; ${log}`,
  },
  {
    ...{ when: 'then its answer is not JSON', activate: { says: undefined }, ...failed },
    details: `the answer of the agent is not understood: it is not JSON; ${sameVersion}`,
  },
  {
    ...{ when: 'then it answers something else', activate: { says: { version: 1 } }, ...failed },
    details: `the answer of the agent is not understood: it is one to another question; ${sameVersion}`,
  },
  { when: 'then it is newer', activate: { says: { version: 2 } }, ...failed, details: newer },
  {
    ...{ when: 'ztunnel does not take the pod', ...failed },
    activate: { throws: new RemedyError('no ztunnel is connected', 'start ztunnel on this node') },
    details: 'no ztunnel is connected; start ztunnel on this node',
  },
  {
    ...{ when: 'then it has a fault', activate: { throws: new TypeError('x is undefined') }, ...failed },
    details: 'the agent failed: x is undefined; the log of the ambridge agent has more',
  },
  { when: 'the pod now asks for what cannot be given', activate: { throws: refusal }, ...refused },
]

export const agentErrors: readonly AgentError[] = [...away, ...noAnswer, ...answers, ...activation]
