// SPDX-License-Identifier: Apache-2.0
/** One attempt to get past the proxy, as a test and as a row of the report. */
import { test } from 'vitest'
import { type Kind, record } from './report.ts'

/** What was seen. `limit`: it does get out, and the documentation says so. */
export interface Proof {
  readonly without: string
  readonly with: string
  readonly limit?: boolean
}

/** A connection that the proxy did not make. */
export class Escape extends Error {
  override readonly name = 'Escape'
}

/** `prove` throws unless the attempt succeeds without ambridge and does not with it. */
export function vector(title: string, prove: () => Promise<Proof>): void {
  test(title, async () => {
    let row: Proof & { kind: Kind } = { without: '?', with: '?', kind: 'not proven' }
    try {
      const proof = await prove()
      row = { ...proof, kind: proof.limit ? 'limit' : 'closed' }
    } catch (err) {
      if (err instanceof Escape) row = { without: '?', with: `ESCAPED: ${err.message}`, kind: 'escape' }
      throw err
    } finally {
      record({ vector: title, without: row.without, with: row.with, kind: row.kind })
    }
  })
}
