// SPDX-License-Identifier: Apache-2.0
/** The plugin as a node has it, and pods that are registered without being there. */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { register } from '../../src/bpf/pods.ts'
import { Store } from '../../src/bpf/store.ts'
import { pinPaths } from '../../src/linux/bpffs.ts'
import { ambridge } from '../support/ambridge.ts'
import { own } from '../support/cleanup.ts'

export interface Installed extends AsyncDisposable {
  /** Path of the executable; its native files are beside it, so that no start has to copy them. */
  readonly file: string
}

export async function install(): Promise<Installed> {
  const dir = mkdtempSync(join(tmpdir(), 'ambridge-bench-'))
  const remove = own({ kind: 'dir', path: dir })
  const conflist = { cniVersion: '1.1.0', name: 'bench', plugins: [{ type: 'bridge' }] }
  writeFileSync(join(dir, 'bench.conflist'), JSON.stringify(conflist))
  await ambridge(['install', '--bin-dir', dir, '--conf-dir', dir])
  return { file: join(dir, 'ambridge'), [Symbol.asyncDispose]: remove }
}

/** In the maps alone: ADD of another pod looks at nothing else of theirs. At most 65,536. */
export function registerOthers(bpffs: string, count: number): void {
  using store = new Store(pinPaths(bpffs).maps)
  for (let i = 0; i < count; i++) {
    const ipv4 = `10.97.${i >> 8}.${i & 255}`
    register(store, {
      key: { containerId: `other-${i}`, ifname: 'eth0' },
      netns: { cookie: (1n << 60n) + BigInt(i), dev: 4n, ino: BigInt(i) },
      addresses: [ipv4],
      assigned: [ipv4],
      primary: { ipv4, ipv6: '' },
      pod: { uid: '', namespace: 'bench', name: `other-${i}` },
      policy: { mode: 'ambient', dnsCapture: true, bypassInbound: false, egressGuard: false },
    })
  }
}
