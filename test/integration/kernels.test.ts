// SPDX-License-Identifier: Apache-2.0
/**
 * Debian's kernels, emulated, each with a node of one pod: two that are supported, and one below the floor. They are
 * downloaded once, into build/cache/kernels. Debian has none of the floor itself, 5.15.
 */
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { ambridgePath } from '../support/ambridge.ts'
import { run, tryRun } from '../support/exec.ts'
import { endpoint, ipOf } from '../support/mesh.ts'
import { type ConnectResult, type DnsReply, parseLines, toolPath } from '../support/sock.ts'
import type { ProxyConnection } from '../support/standin.ts'

interface Kernel {
  readonly suite: string
  readonly version: string
  /** How its proxy is told apart. */
  readonly identity: 'cgroup' | 'mark'
  /** In CI it has to be there. */
  readonly required?: true
}

const supported: readonly Kernel[] = [
  { suite: 'bookworm', version: '6.1', identity: 'cgroup', required: true },
  { suite: 'trixie', version: '6.12', identity: 'mark' },
]
const tooOld: Kernel = { suite: 'bullseye', version: '5.10', identity: 'mark', required: true }

/** As test/kernels/init sets them up. */
const pod = { ipv4: '10.9.0.1', ipv6: 'fd09::1' } as const
const other = { ipv4: '10.9.0.2', ipv6: 'fd09::2' } as const
const families = ['ipv4', 'ipv6'] as const

const bootMs = 180_000

/** What a guest's init reported of one command. */
interface Report {
  /** stdout and stderr */
  readonly output: string
  readonly code: number
}

class Guest {
  readonly #suite: string
  readonly #reports: ReadonlyMap<string, Report>

  private constructor(suite: string, text: string) {
    const found = text.matchAll(/^begin (\S+)\n(.*?)^end \1 (\d+)$/gms)
    this.#suite = suite
    this.#reports = new Map(
      [...found].map(([, name = '', output = '', code]) => [name, { output, code: Number(code) }]),
    )
  }

  static async boot({ suite, identity }: Kernel): Promise<Guest> {
    ambridgePath()
    await toolPath('sock')
    return new Guest(suite, await run('bash', [script('run'), suite, identity], { timeoutMs: bootMs }))
  }

  report(name: string): Report {
    const report = this.#reports.get(name)
    if (report) return report
    throw new Error(`the guest reported no ${name}: see build/cache/kernels/${this.#suite}.console`)
  }

  /** What `sock`, which prints one object a line, reported first. */
  result<T>(name: string): T {
    const { output } = this.report(name)
    const [first] = parseLines<T>(output)
    if (first) return first
    throw new Error(`${name}: nothing was reported`)
  }

  /** What the proxy saw of a client's connection. */
  seen(peer: string | null): ProxyConnection | undefined {
    return parseLines<ProxyConnection>(this.report('proxy').output).find((each) => each.peer === peer)
  }
}

function script(name: string): string {
  return fileURLToPath(new URL(`../kernels/${name}.sh`, import.meta.url))
}

/** Why it could not be downloaded; undefined when it is there. */
async function fetchKernel({ suite }: Kernel): Promise<string | undefined> {
  const { code, stdout, stderr } = await tryRun('bash', [script('fetch'), suite], { timeoutMs: bootMs })
  return code === 0 ? undefined : stdout + stderr
}

/** Those that are there. A required one that is not is a failure in CI; another is named and left out. */
async function available(kernels: readonly Kernel[]): Promise<Kernel[]> {
  const found: Kernel[] = []
  for (const kernel of kernels) {
    const reason = await fetchKernel(kernel)
    if (reason === undefined) found.push(kernel)
    else reportMissing(kernel, reason)
  }
  return found
}

function reportMissing({ suite, version, required }: Kernel, reason: string): void {
  if (!required) {
    process.stderr.write(`Linux ${version} of ${suite} cannot be downloaded: ${reason}\n`)
    return
  }
  test.skipIf(process.env['CI'] !== 'true')(`Linux ${version} of ${suite} can be downloaded`, () => {
    throw new Error(reason)
  })
}

describe.for(await available(supported))(
  'on Linux $version, with the proxy told apart by $identity',
  (kernel) => {
    let guest: Guest

    beforeAll(async () => {
      guest = await Guest.boot(kernel)
    }, bootMs)

    test('the programs are loaded and a pod is enrolled', () => {
      expect(guest.report('kernel').output).toMatch(`${kernel.version}.`)
      expect(guest.report('load')).toMatchObject({ code: 0 })
      expect(guest.report('add')).toEqual({ code: 0, output: '{"cniVersion":"1.0.0"}\n' })
    })

    test.for(families)(
      'outbound: the proxy is told what the app dialled, and the app sees that, over %s',
      (family) => {
        const dialled = endpoint(other[family], 8080)
        const result = guest.result<ConnectResult>(`outbound-${family}`)
        expect(result).toMatchObject({ ok: true, peer: dialled, reply: { server: 'other' } })
        expect(guest.seen(result.local)).toMatchObject({
          listener: 15001,
          original: dialled,
          via_sockopt: family === 'ipv4' ? 'SOL_IP' : 'SOL_IPV6',
          error: '',
        })
      },
    )

    test.for(families)('inbound: the proxy comes first, and the app sees the client, over %s', (family) => {
      const dialled = endpoint(pod[family], 8080)
      const result = guest.result<ConnectResult>(`inbound-${family}`)
      expect(result).toMatchObject({ ok: true, peer: dialled, reply: { server: 'pod' } })
      expect(ipOf(result.reply?.peer)).toBe(other[family])
      expect(ipOf(result.reply?.getpeername)).toBe(other[family])
      expect(guest.seen(result.local)).toMatchObject({
        listener: 15006,
        original: dialled,
        source: other[family],
        error: '',
      })
    })

    test.for(families)('DNS: the proxy answers in the name of the server, over %s', (family) => {
      expect(guest.result<DnsReply>(`dns-${family}`)).toMatchObject({
        from: endpoint(other[family], 53),
        answer: '192.0.2.53',
      })
    })

    test.for(['outbound', 'inbound'])('without the proxy, %s is refused', (direction) => {
      expect(guest.result<ConnectResult>(`refused-${direction}`)).toMatchObject({
        ok: false,
        error: 'ECONNREFUSED',
        at: 'connect',
      })
    })

    test('unload leaves nothing behind', () => {
      expect(guest.report('unload')).toMatchObject({ code: 0 })
      expect(guest.report('left')).toEqual({ code: 0, output: '' })
    })
  },
)

describe.for(await available([tooOld]))('on Linux $version, below the floor', (kernel) => {
  let guest: Guest

  beforeAll(async () => {
    guest = await Guest.boot(kernel)
  }, bootMs)

  test('load names the kernel and what it lacks, and leaves nothing behind', () => {
    expect(guest.report('load')).toEqual({
      code: 1,
      output: expect.stringMatching(
        /^ambridge: kernel 5\.10\.\S+ lacks a needed feature: SO_NETNS_COOKIE \(Linux 5\.14\)\n {2}Linux 5\.15 or newer is needed\n$/,
      ),
    })
    expect(guest.report('left')).toEqual({ code: 0, output: '' })
  })
})
