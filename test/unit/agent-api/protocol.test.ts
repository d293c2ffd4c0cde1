// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decode, encode, maxPacketBytes, protocolVersion } from '../../../src/agent-api/protocol.ts'
import { encodeError, encodeReply, readRequest } from '../../../src/agent-api/requests.ts'
import { PolicyError } from '../../../src/policy/error.ts'
import type { Decision, SidecarRules } from '../../../src/policy/pod.ts'
import { RemedyError } from '../../../src/remedy.ts'
import { validateReply } from '../../../src/schema/agent-reply.gen.cjs'
import { validateRequest } from '../../../src/schema/agent-request.gen.cjs'

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 500)
const timeout = 10_000 + 10 * numRuns
const request = {
  containerId: 'c0ffee',
  ifname: 'eth0',
  pod: { namespace: 'shop', name: 'cart-0.a', uid: 'b4a7f1de-6a44-4e0e-9e1c-3b1f6c6f7f10' },
}
const anyVersion = (version: number) => new RemedyError(`version ${version}`, 'remedy')
const readReply = (bytes: Buffer) => decode(bytes, 'the answer', validateReply, anyVersion)
const packet = (bytes: Buffer) => ({ bytes, fds: [], truncated: false })

const sidecar: SidecarRules = {
  includeInboundPorts: '*',
  excludeInboundPorts: [15020],
  includeOutboundPorts: [],
  excludeOutboundPorts: [0, 65535],
  includeOutboundRanges: [{ address: '10.0.0.0', prefix: 8, family: 4 }],
  excludeOutboundRanges: [{ address: 'fd00::', prefix: 128, family: 6 }],
  includesLoopback: true,
  proxyUid: 0,
  proxyGid: 4294967294,
}
const common = { dnsCapture: true, bypassInbound: false, egressGuard: true }
const decisions: Decision[] = [
  { enroll: false, reason: '', warnings: ['a warning'] },
  { enroll: true, reason: 'chosen', warnings: [], policy: { mode: 'ambient', ...common } },
  {
    ...{ enroll: true, reason: 'chosen', warnings: [] },
    policy: { mode: 'ambient-shared', proxyIdentity: 'mark', ...common },
  },
  { enroll: true, reason: 'chosen', warnings: [], policy: { mode: 'sidecar', ...common, sidecar } },
  {
    ...{ enroll: true, reason: 'chosen', warnings: [] },
    policy: {
      ...{ mode: 'sidecar', ...common },
      sidecar: { ...sidecar, includeInboundPorts: [80], includeOutboundRanges: '*' },
    },
  },
]

test.for(decisions)('a decision arrives as it was sent: %j', (decision) => {
  expect(readReply(encodeReply({ decision }))).toEqual({ version: protocolVersion, decision })
})

test.for(['', 'b4a7f1de-6a44-4e0e-9e1c-3b1f6c6f7f10', '0123456789abcdef0123456789abcdef'])(
  'a request arrives as it was sent: uid %j',
  (uid) => {
    const sent = { ...request, pod: { ...request.pod, uid } }
    expect(readRequest(packet(encode({ op: 'decide', ...sent })))).toEqual({ op: 'decide', request: sent })
  },
)

test.for([
  ['enroll', 'decision.enroll must be boolean'],
  ['reason', 'decision.reason must be string'],
  ['warnings', 'decision.warnings must be array'],
])('a decision whose %s is wrong is refused', ([field = '', fault]) => {
  const bytes = Buffer.from(JSON.stringify({ version: 1, decision: { ...decisions[0], [field]: 7 } }))
  expect(() => readReply(bytes)).toThrow(`the answer is not understood: ${fault}`)
})

test('a decision to enroll without a policy is refused, and so is a sidecar without its rules', () => {
  const decision = { enroll: true, reason: 'chosen', warnings: [] }
  const [bare, ruleless] = [decision, { ...decision, policy: { mode: 'sidecar', ...common } }].map((each) =>
    Buffer.from(JSON.stringify({ version: 1, decision: each })),
  )
  expect(() => readReply(bare ?? expect.fail())).toThrow("decision must have required property 'policy'")
  expect(() => readReply(ruleless ?? expect.fail())).toThrow(
    "decision.policy must have required property 'sidecar'",
  )
})

/** Each value in a valid decision. */
const fields = Object.keys(sidecar).flatMap((field) =>
  [null, -1, 'x', [-1], [{}]].map((value) => [field, value] as const),
)
test.for(fields)('sidecar rules whose %s is %j are refused', ([field, value]) => {
  const policy = { mode: 'sidecar', ...common, sidecar: { ...sidecar, [field]: value } }
  const decision = { enroll: true, reason: 'chosen', warnings: [], policy }
  const bytes = Buffer.from(JSON.stringify({ version: 1, decision }))
  expect(() => readReply(bytes)).toThrow(`decision.policy.sidecar.${field}`)
})

test('the version comes before everything else', () => {
  for (const validate of [validateReply, validateRequest]) {
    const read = (document: unknown) =>
      decode(Buffer.from(JSON.stringify(document)), 'it', validate, anyVersion)
    expect(() => read({ version: 2, decision: 7 })).toThrow('version 2')
    expect(() => read({ version: '1' })).toThrow('it is not understood')
  }
})

test('errors keep what the runtime is to show', () => {
  const refused = new PolicyError('an/annotation', 'x'.repeat(300_000), 'remove it')
  const { error } = readReply(encodeError(refused)) as {
    error: { annotation: { name: string; value: string }; remedy: string }
  }
  const { name, value } = error.annotation
  expect(new PolicyError(name, value, error.remedy).message).toBe(refused.message)
  expect(readReply(encodeError(new RemedyError('why', 'what to do')))).toMatchObject({
    error: { message: 'why', remedy: 'what to do' },
  })
})

test('whatever is thrown fits into a packet and is understood', { timeout }, () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.anything(),
        fc.string().map((text) => new Error(text.repeat(10_000))),
      ),
      (thrown) => {
        const bytes = encodeError(thrown)
        expect(bytes.length).toBeLessThanOrEqual(maxPacketBytes)
        expect(readReply(bytes)).toMatchObject({ version: 1, error: { message: expect.stringMatching(/./) } })
      },
    ),
    { numRuns },
  )
})

test('whatever comes in, it is a request or a RemedyError', { timeout }, () => {
  const texts = fc.oneof(fc.json(), fc.string(), fc.constant(encode({ op: 'decide', ...request }).toString()))
  let understood = 0
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 2000 }), texts), (content) => {
      try {
        readRequest(packet(Buffer.from(content)))
        understood++
      } catch (err) {
        expect(err).toBeInstanceOf(RemedyError)
      }
    }),
    { numRuns },
  )
  expect(understood).toBeGreaterThan(0)
})

test('what does not fit is not sent', () => {
  const reply = { decision: { enroll: false, reason: 'x'.repeat(maxPacketBytes), warnings: [] } } as const
  expect(() => encodeReply(reply)).toThrow('at most 65536 are possible')
})
