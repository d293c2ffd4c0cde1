// SPDX-License-Identifier: Apache-2.0
/** Resolvers of all kinds inside a pod, and a real DNS server that a captured query must not reach. */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { own } from './cleanup.ts'
import { type ExecResult, run, tryRun, waitFor } from './exec.ts'
import { enter, type OwnedDaemon, queryDns, startOwned, type Where } from './sock.ts'

const toolsDir = fileURLToPath(new URL('../tools', import.meta.url))
const outDir = fileURLToPath(new URL('../../build/tools', import.meta.url))

/** Path of a program that prints what getaddrinfo() of musl finds. */
export async function muslResolverPath(): Promise<string> {
  await run('make', ['-s', '-C', toolsDir, 'resolve-musl'])
  return `${outDir}/resolve-musl`
}

/** Bind mounts are the process's own. glibc asks DNS alone, whatever this machine's nsswitch.conf says. */
const withPrivateFiles =
  'mount --bind "$0/resolv.conf" /etc/resolv.conf && mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && exec "$@"'

/** Run a program with an /etc/resolv.conf that names these servers. */
export async function resolveWith(
  where: Where,
  servers: readonly string[],
  command: readonly string[],
): Promise<ExecResult> {
  const dir = mkdtempSync(`${tmpdir()}/ambt${process.pid}-resolv`)
  const remove = own({ kind: 'dir', path: dir })
  const lines = [...servers.map((server) => `nameserver ${server}`), 'options timeout:1 attempts:2']
  writeFileSync(`${dir}/resolv.conf`, `${lines.join('\n')}\n`)
  writeFileSync(`${dir}/nsswitch.conf`, 'hosts: dns\n')
  const inside = ['unshare', '--mount', 'sh', '-c', withPrivateFiles, dir, ...command]
  const [file = '', ...args] = enter(where, inside)
  try {
    return await tryRun(file, args)
  } finally {
    await remove()
  }
}

/** dnsmasq, at every address of its netns, UDP and TCP. It knows one IPv4 and one IPv6 address, of every name. */
export class DnsServer implements AsyncDisposable {
  readonly #owned: OwnedDaemon

  private constructor(owned: OwnedDaemon) {
    this.#owned = owned
  }

  static async start(where: Where, ipv4: string, ipv6: string): Promise<DnsServer> {
    const alone = ['--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--pid-file']
    const logged = ['--user=root', '--log-queries', '--log-facility=-']
    const answers = [`--address=/#/${ipv4}`, `--address=/#/${ipv6}`]
    const server = new DnsServer(
      await startOwned('dnsmasq', where, ['dnsmasq', ...alone, ...logged, ...answers]),
    )
    const isReady = async () => {
      const { error } = await queryDns(where, ['127.0.0.1'], ['--name', 'ready.test', '--timeout', '200'])
      if (error !== '' && server.#owned.daemon.hasExited()) throw new Error(server.#owned.log())
      return error === ''
    }
    await waitFor('dnsmasq', isReady)
    return server
  }

  /** Names that it was asked for. */
  queries(): string[] {
    return [...this.#owned.log().matchAll(/query\[\S+\] (\S+) from/g)]
      .map(([, name = '']) => name)
      .filter((name) => name !== 'ready.test')
  }

  stop(): Promise<void> {
    return this.#owned.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}
