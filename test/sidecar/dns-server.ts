// SPDX-License-Identifier: Apache-2.0
/**
 * A program: a DNS server that answers every question with one address, over UDP and TCP. On port 15053 it stands for the one
 * in istio-agent.
 *
 *   node dns-server.ts PORT ANSWER ADDRESS...
 */
import { createSocket } from 'node:dgram'
import { createServer, isIPv6, type Socket } from 'node:net'
import { argv, stdout } from 'node:process'

const [port = '', answer = '', ...addresses] = argv.slice(2)

/** The question of `query`, and `answer` as its A record (name: a pointer to the question's). */
function reply(query: Buffer): Buffer {
  const header = Buffer.from(query.subarray(0, 12))
  header.writeUInt16BE(0x8180, 2)
  header.writeUInt16BE(1, 6)
  header.fill(0, 8)
  const question = query.subarray(12, query.indexOf(0, 12) + 5)
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...answer.split('.').map(Number)])
  return Buffer.concat([header, question, record])
}

/** One query; a message over TCP is preceded by its length. */
function serveTcp(socket: Socket): void {
  socket.on('error', () => socket.destroy())
  socket.once('data', (data) => {
    const message = reply(data.subarray(2))
    const length = Buffer.alloc(2)
    length.writeUInt16BE(message.length)
    socket.end(Buffer.concat([length, message]))
  })
}

async function listen(address: string): Promise<void> {
  const udp = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
  udp.on('message', (query, from) => udp.send(reply(query), from.port, from.address))
  await new Promise<void>((resolve) => udp.bind(Number(port), address, resolve))
  await new Promise<void>((resolve) => createServer(serveTcp).listen(Number(port), address, resolve))
}

for (const address of addresses) await listen(address)
stdout.write('ready\n')
