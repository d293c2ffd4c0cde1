// SPDX-License-Identifier: Apache-2.0
/** Network rules before and after: iptables, nft, ip rule, ip route, tc. */
import { readFileSync } from 'node:fs'
import { maskCounters, snapshotNetworkRules } from '../support/netns.ts'

export interface RulesCheck {
  /** Whose network namespace. */
  readonly of: string
  readonly before: string
  readonly after: string
}

export async function checkRules(of: string, before: string, netnsPath: string): Promise<RulesCheck> {
  return { of, before, after: await snapshotNetworkRules(netnsPath) }
}

/** What the plugin netrules has kept. */
export function readRules(path: string): string {
  return maskCounters(readFileSync(path, 'utf8'))
}

/** Lines that are there only before (-) or only after (+). */
export function changes({ before, after }: RulesCheck): string[] {
  const [old, now] = [before.split('\n'), after.split('\n')]
  const only = (lines: string[], others: string[]): string[] => lines.filter((line) => !others.includes(line))
  return [...only(old, now).map((line) => `- ${line}`), ...only(now, old).map((line) => `+ ${line}`)]
}
