// SPDX-License-Identifier: Apache-2.0

/** What a command did to one thing. */
export interface Step {
  readonly kind: 'directory' | 'program' | 'link' | 'proxy' | 'settings' | 'pods' | 'map'
  readonly name: string
  readonly result: string
}

export type Report = (kind: Step['kind'], name: string, result: string) => void

/** A report that keeps the steps. */
export function collectSteps(): { steps: Step[]; report: Report } {
  const steps: Step[] = []
  return { steps, report: (kind, name, result) => void steps.push({ kind, name, result }) }
}
