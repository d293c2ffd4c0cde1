// SPDX-License-Identifier: Apache-2.0
/** The plugin's entry in the conflist, so that plugin and agent agree. */

import { RemedyError } from '../../src/remedy.ts'
import { isObject, syntaxProblem } from '../conflist.ts'
import { defaultEntry, requireValidEntry } from '../install.ts'

export interface Shared {
  readonly bpffs: string
  readonly socket: string
  readonly enrollmentFile: string
  readonly excludeNamespaces: readonly string[] | undefined
}

/** As in Istio's chart. */
const defaultExclusions = ['kube-system']

/** JSON. Throws where `given` is no entry, or says something else than the agent's options. */
export function entryWith(
  given: string | undefined,
  { bpffs, socket, enrollmentFile, excludeNamespaces }: Shared,
): string {
  const entry = parse(given ?? defaultEntry)
  requireAmbient(entry)
  const exclusions = excludeNamespaces ?? entry['excludeNamespaces'] ?? defaultExclusions
  const shared = { bpffs, agentSocket: socket, enrollmentFile }
  for (const [key, value] of Object.entries(shared)) {
    if (!(key in entry) || entry[key] === value) continue
    const remedy = `leave ${key} out of the entry: the agent writes its own`
    throw new RemedyError(
      `--entry: ${key} is ${JSON.stringify(entry[key])}, the agent's is ${JSON.stringify(value)}`,
      remedy,
    )
  }
  const text = JSON.stringify({ ...entry, ...shared, excludeNamespaces: exclusions }, null, 2)
  requireValidEntry(text)
  return text
}

function parse(text: string): Record<string, unknown> {
  const problem = syntaxProblem(text)
  const entry: unknown = problem === undefined ? JSON.parse(text) : undefined
  if (isObject(entry)) return entry
  throw new RemedyError(
    `--entry ${problem ?? 'is not a JSON object'}`,
    `pass one such as ${defaultEntry.replace(/\s+/g, ' ')}`,
  )
}

/** The proxies of the other modes speak no ZDS; sidecars are served beside ambient pods, by --sidecar. */
function requireAmbient({ mode = 'ambient' }: Record<string, unknown>): void {
  if (mode === 'ambient') return
  const remedy =
    'use mode ambient; for sidecars beside it: --sidecar; for other modes: enrollment.source static, without agent'
  throw new RemedyError(`--entry: the agent serves mode ambient, not ${JSON.stringify(mode)}`, remedy)
}
