// SPDX-License-Identifier: Apache-2.0
/** The messages of ZDS (conf/zds.proto) as packets. */
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { ZdsError } from './error.ts'
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from './zds.gen.ts'

/** In either direction; ztunnel takes a longer one for a broken connection. */
export const maxPacketBytes = 1024

/** Of a pod; ztunnel makes the identity of its connections from it. */
export interface WorkloadInfo {
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
}

type Payload = NonNullable<MessageInitShape<typeof WorkloadRequestSchema>['payload']>

/** Goes with the netns. The info must be there: without it ztunnel ends itself. Throws ZdsError when it is too long. */
export function encodeAdd(uid: string, info: WorkloadInfo): Buffer {
  const workloadInfo = { name: info.name, namespace: info.namespace, serviceAccount: info.serviceAccount }
  return encode({ case: 'add', value: { uid, workloadInfo } })
}

/** "Known, but I have no netns": before SnapshotSent alone; ztunnel ends itself on one that comes later. */
export function encodeKeep(uid: string): Buffer {
  return encode({ case: 'keep', value: { uid } })
}

export function encodeDel(uid: string): Buffer {
  return encode({ case: 'del', value: { uid } })
}

/** Once per connection: ztunnel ends itself on a second one. */
export function encodeSnapshotSent(): Buffer {
  return encode({ case: 'snapshotSent', value: {} })
}

function encode(payload: Payload): Buffer {
  const bytes = Buffer.from(toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, { payload })))
  if (bytes.length <= maxPacketBytes) return bytes
  throw new ZdsError('refused', `${bytes.length} bytes are more than ztunnel takes, ${maxPacketBytes}`, {
    remedy: 'shorten the names of the pod, of its namespace and of its service account',
  })
}

/** Any version will do: there is one. Throws on what is no hello. */
export function decodeHello(bytes: Buffer): void {
  fromBinary(ZdsHelloSchema, bytes)
}

/** ztunnel's error text; empty means success. Throws on what is no acknowledgement. */
export function decodeAck(bytes: Buffer): string {
  const { payload } = fromBinary(WorkloadResponseSchema, bytes)
  if (payload.case !== 'ack') throw new Error('neither an acknowledgement nor an error')
  return payload.value.error
}
