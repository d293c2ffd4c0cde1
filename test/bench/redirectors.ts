// SPDX-License-Identifier: Apache-2.0
/** How a pod's connections come to its proxy: the contenders of the path suite. */
import type { LanHost } from '../support/netns.ts'

/** In the order of the hosts that they get. */
export const redirectors = ['ambridge', 'direct', 'redirect', 'istio'] as const
export type Redirector = (typeof redirectors)[number]

/** Not ztunnel's mark. */
const notProxy = '-m mark ! --mark 0x539/0xfff'

/** One rule, and so conntrack. `to`: the only address that is redirected. */
export async function redirect({ netns }: LanHost, to: string): Promise<void> {
  const rule = `-A OUTPUT -p tcp -d ${to} ${notProxy} -j REDIRECT --to-ports 15001`
  await netns.run('iptables-restore', ['--noflush'], { input: `*nat\n${rule}\nCOMMIT\n` })
}
