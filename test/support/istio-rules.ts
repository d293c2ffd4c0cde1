// SPDX-License-Identifier: Apache-2.0
/** What istio-cni writes into a pod in ambient mode (cni/pkg/iptables): rules, and routes for replies, of both families. */
import type { Netns } from './netns.ts'

export async function redirectAsIstio(netns: Netns): Promise<void> {
  await netns.run('iptables-restore', ['--noflush'], { input: istioRules('! -d 127.0.0.1/32') })
  await netns.run('ip6tables-restore', ['--noflush'], { input: istioRules('! -d ::1/128') })
  await netns.ip(['rule add fwmark 0x111/0xfff lookup 100', 'route add local 0.0.0.0/0 dev lo table 100'])
  await netns.run('ip', ['-6', 'rule', 'add', 'fwmark', '0x111/0xfff', 'lookup', '100'])
  await netns.run('ip', ['-6', 'route', 'add', 'local', '::/0', 'dev', 'lo', 'table', '100'])
}

function istioRules(elsewhere: string): string {
  const unmarked = '-m mark ! --mark 0x539/0xfff'
  return `*mangle
-A PREROUTING -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark
COMMIT
*nat
-A PREROUTING ${elsewhere} -p tcp ! --dport 15008 ${unmarked} -j REDIRECT --to-ports 15006
-A OUTPUT ! -o lo -p udp --dport 53 ${unmarked} -j REDIRECT --to-ports 15053
-A OUTPUT ${elsewhere} -p tcp --dport 53 ${unmarked} -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A OUTPUT ${elsewhere} -o lo -j ACCEPT
-A OUTPUT ${elsewhere} -p tcp ${unmarked} -j REDIRECT --to-ports 15001
COMMIT
`
}
