// SPDX-License-Identifier: Apache-2.0
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { RemedyError } from '../../src/remedy.ts'
import type { Metrics } from './metrics.ts'

export interface HttpOptions {
  readonly host: string
  readonly port: number
  readonly metrics: Metrics
  /** Why the agent is not ready; empty: it is. */
  problems(): readonly string[]
}

/** /healthz: the process answers. /readyz: with the reasons when it is not ready. /metrics: for Prometheus. */
export async function serveHttp({ host, port, metrics, problems }: HttpOptions): Promise<Server> {
  const server = createServer((request, response) => {
    const answer = (status: number, text: string, type = 'text/plain') =>
      void response.writeHead(status, { 'content-type': type }).end(text)
    if (request.url === '/healthz') return answer(200, 'ok\n')
    if (request.url === '/readyz') {
      const why = problems()
      return why.length === 0 ? answer(200, 'ready\n') : answer(503, `not ready: ${why.join('; ')}\n`)
    }
    if (request.url !== '/metrics') return answer(404, 'try /healthz, /readyz or /metrics\n')
    void metrics.registry.metrics().then((text) => answer(200, text, metrics.registry.contentType))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const remedy = 'choose another address: --http ADDRESS:PORT'
      reject(new RemedyError(`cannot listen on ${host}:${port}: ${cause.code}`, remedy, { cause }))
    })
    server.listen(port, host, resolve)
  })
  return server
}

/** As in a URL. */
export function addressOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`
}
