// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { Proxies } from '../../../installer/agent/proxies.ts'
import type { Cluster } from '../../../src/k8s/cluster.ts'

test('a process that this pid namespace does not show is refused, with the reason', () => {
  const rules = {
    load: { bpffs: '/nowhere', proxyCgroups: [] },
    ztunnel: { namespace: 'a', serviceAccount: 'b' },
  }
  const proxies = new Proxies({} as Cluster, rules)
  expect(() => proxies.admit(0)).toThrow(
    expect.objectContaining({ remedy: expect.stringContaining('hostPID') }),
  )
  expect(proxies.pids()).toEqual([])
})
