// SPDX-License-Identifier: Apache-2.0
/** Hundreds of network namespaces, made by few processes. They reach nobody. */
import { own } from './cleanup.ts'
import { run } from './exec.ts'

export interface CrowdedNetns {
  readonly name: string
  readonly path: string
  /** IPv4, of its only interface, eth0. */
  readonly address: string
}

export interface NetnsCrowd extends AsyncDisposable {
  readonly netnses: readonly CrowdedNetns[]
}

let created = 0

export async function netnsCrowd(count: number): Promise<NetnsCrowd> {
  const prefix = `ambt${process.pid}-crowd${++created}`
  const netnses = Array.from({ length: count }, (_, i) => {
    const name = `${prefix}-${i}`
    return { name, path: `/run/netns/${name}`, address: `10.240.${i >> 7}.${(i & 127) + 1}` }
  })
  const releases = netnses.map(({ name }) => own({ kind: 'netns', name }))
  const dispose = async () => {
    for (const release of releases) await release()
  }
  try {
    await ip(netnses.map(({ name }) => `netns add ${name}`))
    await ip(netnses.map(({ name }) => `link add eth0 netns ${name} type veth peer name peer0 netns ${name}`))
    const script = netnses.map(({ name, address }) => {
      return `printf 'addr add ${address}/24 dev eth0\\nlink set lo up\\n' | ip -n ${name} -batch -`
    })
    await run('sh', ['-ec', script.join('\n')], { timeoutMs: 120_000 })
  } catch (err) {
    await dispose()
    throw err
  }
  return { netnses, [Symbol.asyncDispose]: dispose }
}

async function ip(commands: readonly string[]): Promise<void> {
  await run('ip', ['-batch', '-'], { input: `${commands.join('\n')}\n`, timeoutMs: 120_000 })
}
