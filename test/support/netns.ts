// SPDX-License-Identifier: Apache-2.0

import { own } from './cleanup.ts'
import { type ExecOptions, type ExecResult, run, tryRun } from './exec.ts'

let created = 0

/** A network namespace of the test's own, with lo up, and without duplicate address detection: addresses work at once. */
export class Netns implements AsyncDisposable {
  readonly name: string
  readonly path: string
  readonly #remove: () => Promise<void>

  private constructor(name: string, remove: () => Promise<void>) {
    this.name = name
    this.path = `/run/netns/${name}`
    this.#remove = remove
  }

  static async create(label = 'ns'): Promise<Netns> {
    const name = `ambt${process.pid}-${++created}-${label}`
    const netns = new Netns(name, own({ kind: 'netns', name }))
    await run('ip', ['netns', 'add', name])
    await netns.sysctl({ 'ipv6.conf.all.accept_dad': 0, 'ipv6.conf.default.accept_dad': 0 })
    await netns.ip(['link set lo up'])
    return netns
  }

  /** Not `ip netns exec`, which mounts a new /sys and so hides the cgroups. */
  exec(command: string, args: readonly string[] = [], options: ExecOptions = {}): Promise<ExecResult> {
    return tryRun('nsenter', [`--net=${this.path}`, '--', command, ...args], options)
  }

  /** `exec` that expects exit code 0 and gives stdout. */
  run(command: string, args: readonly string[] = [], options: ExecOptions = {}): Promise<string> {
    return run('nsenter', [`--net=${this.path}`, '--', command, ...args], options)
  }

  /** ip commands without the leading `ip`, in one process: `link set lo up`. */
  async ip(commands: readonly string[]): Promise<void> {
    await run('ip', ['-n', this.name, '-batch', '-'], { input: `${commands.join('\n')}\n` })
  }

  /** Keys below `net.`. */
  async sysctl(values: Readonly<Record<string, number | string>>): Promise<void> {
    await this.run('sysctl', ['-qw', ...Object.entries(values).map(([key, value]) => `net.${key}=${value}`)])
  }

  dispose(): Promise<void> {
    return this.#remove()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

/** A veth pair with both ends up, for instance `veth([a, 'eth0'], [b, 'eth0'])`. */
export async function veth(
  [a, aName]: readonly [Netns, string],
  [b, bName]: readonly [Netns, string],
): Promise<void> {
  await a.ip([`link add ${aName} type veth peer name ${bName} netns ${b.name}`, `link set ${aName} up`])
  await b.ip([`link set ${bName} up`])
}

/** Turn a netns into a router with one bridge; IPv6 addresses without a wait. */
export async function addBridge(router: Netns, bridge: string, addresses: readonly string[]): Promise<void> {
  await router.sysctl({
    'ipv4.ip_forward': 1,
    'ipv6.conf.all.forwarding': 1,
    // A redirect would leave route exceptions behind in the pods.
    'ipv4.conf.all.send_redirects': 0,
    'ipv4.conf.default.send_redirects': 0,
  })
  await router.ip([
    `link add ${bridge} type bridge mcast_snooping 0`,
    ...addresses.map(
      (address) => `addr add ${address} dev ${bridge} ${address.includes(':') ? 'nodad' : ''}`,
    ),
    `link set ${bridge} up`,
  ])
}

export interface LanHost {
  readonly netns: Netns
  readonly ipv4: string
  readonly ipv6: string
}

export interface SmallLan extends AsyncDisposable {
  readonly router: Netns
  readonly hosts: readonly LanHost[]
  dispose(): Promise<void>
}

/** `count` network namespaces on one bridge: 10.250.0.1.., fd10:250::1.. on eth0, default routes to the bridge (.254, ::fe). */
export async function lan(count: number): Promise<SmallLan> {
  const router = await Netns.create('lan')
  const hosts: LanHost[] = []
  const dispose = async (): Promise<void> => {
    for (const netns of [...hosts.map((host) => host.netns), router]) await netns.dispose()
  }
  try {
    await addBridge(router, 'lan0', ['10.250.0.254/24', 'fd10:250::fe/64'])
    for (let i = 1; i <= count; i++) hosts.push(await addHost(router, i))
  } catch (err) {
    await dispose()
    throw err
  }
  return { router, hosts, dispose, [Symbol.asyncDispose]: dispose }
}

/** One more, which the caller disposes. */
export async function addHost(router: Netns, index: number): Promise<LanHost> {
  const netns = await Netns.create(`h${index}`)
  const ipv4 = `10.250.0.${index}`
  const ipv6 = `fd10:250::${index.toString(16)}`
  await veth([router, `h${index}`], [netns, 'eth0'])
  await router.ip([`link set h${index} master lan0`])
  await netns.ip([
    `addr add ${ipv4}/24 dev eth0`,
    `addr add ${ipv6}/64 dev eth0 nodad`,
    'route add default via 10.250.0.254',
    'route add default via fd10:250::fe',
  ])
  return { netns, ipv4, ipv6 }
}

/** Commands that print rules without counters. `iptables-save` is the machine's own flavour; the legacy one is asked as well. */
export const showRules = `
show() { echo "== $*"; "$@" 2>&1; }
for save in iptables-save ip6tables-save iptables-legacy-save ip6tables-legacy-save; do show $save; done
show nft -s list ruleset
show ip rule; show ip -6 rule
show ip route show table all; show ip -6 route show table all
for dev in $(ip -o link show | cut -d: -f2 | cut -d@ -f1); do
  show tc qdisc show dev $dev
  show tc filter show dev $dev; show tc filter show dev $dev ingress; show tc filter show dev $dev egress
done
`

/**
 * Every rule, route, qdisc and filter of a network namespace as text, to compare before and after. Masked is only what changes by
 * itself: counters, time stamps and remaining life times.
 */
export async function snapshotNetworkRules(netnsPath: string): Promise<string> {
  return maskCounters(await run('nsenter', [`--net=${netnsPath}`, '--', 'sh', '-c', showRules]))
}

/** In what `showRules` printed. */
export function maskCounters(text: string): string {
  return text
    .replaceAll(/^# (Generated by|Completed on) .*$/gm, '# $1')
    .replaceAll(/^(:\S+ \S+) \[\d+:\d+\]$/gm, '$1')
    .replaceAll(/ expires -?\d+sec/g, ' expires')
}
