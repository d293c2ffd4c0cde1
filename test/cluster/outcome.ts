// SPDX-License-Identifier: Apache-2.0
import { type ConnectResult, parseLines } from '../support/sock.ts'

export type Outcome = 'captured' | 'direct' | 'failed'

/** Of a line of `sock connect`. A proxied connection comes from another port than the client's own. */
export function outcomeOf(line: string): Outcome {
  const [result] = parseLines<ConnectResult>(line)
  if (!result?.ok || !result.reply) return 'failed'
  return result.reply.peer === result.local ? 'direct' : 'captured'
}
