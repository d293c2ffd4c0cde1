// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path/posix'
import type { Netns } from '../linux/netns.ts'
import type { Packet } from '../linux/unix.ts'
import { PolicyError } from '../policy/error.ts'
import type { Decision } from '../policy/pod.ts'
import { RemedyError } from '../remedy.ts'
import { Listener, type ListenerOptions } from './listener.ts'
import type { ActivateRequest, DecideRequest } from './protocol.ts'
import { encodeError, encodeReply, readRequest } from './requests.ts'

/** What a handler throws is what the plugin fails with. Handlers run at the same time, and to their end, whoever waits. */
export interface AgentServerOptions extends ListenerOptions {
  decide(request: DecideRequest): Promise<Decision>
  /** The netns is the handler's to dispose. */
  activate(request: ActivateRequest, netns: Netns): Promise<void>
}

/** The agent's side: answers the plugins of this node. */
export class AgentServer implements AsyncDisposable {
  readonly #options: AgentServerOptions
  readonly #listener: Listener

  private constructor(options: AgentServerOptions) {
    this.#options = options
    this.#listener = new Listener(options, (packet) => this.#answer(packet))
  }

  /** The socket's directory is made, for root alone. Throws SystemError, and RemedyError where others may write to it. */
  static listen(options: AgentServerOptions): AgentServer {
    requireOwnDirectory(dirname(options.path))
    return new AgentServer(options)
  }

  get connections(): number {
    return this.#listener.connections
  }

  /** Waits for the requests in flight, but not for long. Idempotent. */
  stop(): Promise<void> {
    return this.#listener.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #answer(packet: Packet): Promise<Buffer> {
    const { decide, activate, log } = this.#options
    let about: object = {}
    try {
      const asked = readRequest(packet)
      const { op, request } = asked
      const { containerId, pod } = request
      about = { op, containerId, pod: `${pod.namespace}/${pod.name}` }
      if (asked.op === 'decide') return encodeReply({ decision: await decide(request) })
      await activate(request, asked.netns)
      return encodeReply({ activated: true })
    } catch (error) {
      // What a pod asks for wrongly is its owner's business.
      if (error instanceof PolicyError) log.info('request refused', { ...about, error })
      else log.warn('request failed', { ...about, error })
      return encodeError(error)
    }
  }
}

/** The socket is root's by its mode; in a directory of others its name would not be. */
function requireOwnDirectory(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const { uid, mode } = statSync(dir)
  if (uid === 0 && (mode & 0o022) === 0) return
  const remedy = 'choose another directory for the socket of the agent, or take their rights away'
  throw new RemedyError(`others than root can write to ${dir}`, remedy)
}
