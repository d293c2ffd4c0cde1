// SPDX-License-Identifier: Apache-2.0
// zds-crowd.ts PATH leave|silent|hello|ztunnel: until it is killed, one connection after the other that is closed at once; as
// many as are let in that say nothing, or hello and no more; or one ztunnel that does what it should, and connects anew.
import { closeSync } from 'node:fs'
import { connectSeqpacket, receivePacket, sendPacket } from '../../../src/linux/unix.ts'

const [path = '', mode = ''] = process.argv.slice(2)
const hello = Buffer.from('0801', 'hex')
const ack = Buffer.from('0a00', 'hex')
/** Of connections, and so of descriptors, at the same time. */
const mostAtOnce = 500

const open: number[] = []
for (;;) {
  try {
    const socket = connectSeqpacket(path, 1000)
    if (mode === 'ztunnel') serve(socket)
    else crowd(socket)
  } catch {
    // Refused, or the backlog is full: again.
  }
}

function crowd(socket: number): void {
  open.push(socket)
  const oldest = mode === 'leave' || open.length > mostAtOnce ? open.shift() : undefined
  if (oldest !== undefined) closeSync(oldest)
  if (mode === 'hello') sendPacket(socket, hello)
}

function serve(socket: number): void {
  try {
    sendPacket(socket, hello)
    for (;;) {
      const packet = receivePacket(socket, 1024)
      if (packet === undefined) continue
      packet.fds.forEach(closeSync)
      if (packet.bytes.length === 0) return
      sendPacket(socket, ack)
    }
  } finally {
    closeSync(socket)
  }
}
