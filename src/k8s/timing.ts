// SPDX-License-Identifier: Apache-2.0

/** Milliseconds. */
export interface Timing {
  /** A direct read, or a patch: a pod waits for it. */
  readonly readMs: number
  readonly listMs: number
  /** Until a watch is answered. */
  readonly openMs: number
  /** Until a watch that says nothing is opened anew: the API server may hang. Where nothing changes, silence is normal. */
  readonly silentMs: number
  /** Until the API server itself ends a watch. */
  readonly watchMs: number
  /** A watch that lived as long ends a streak of failures. */
  readonly steadyMs: number
  readonly minPauseMs: number
  readonly maxPauseMs: number
}

export const defaultTiming: Timing = {
  readMs: 3_000,
  listMs: 30_000,
  openMs: 15_000,
  silentMs: 150_000,
  watchMs: 300_000,
  steadyMs: 10_000,
  minPauseMs: 100,
  maxPauseMs: 10_000,
}
