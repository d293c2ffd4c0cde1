// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config'

// The root tests share one kernel, so one file runs at a time; setns needs the main thread of a process.
const root = (groupOrder: number) =>
  ({
    pool: 'forks',
    fileParallelism: false,
    sequence: { groupOrder },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  }) as const

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      { test: { name: 'bpf', include: ['test/bpf/**/*.test.ts'], ...root(1) } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...root(2) } },
      {
        test: {
          name: 'escapes',
          include: ['test/escapes/**/*.test.ts'],
          globalSetup: ['test/escapes/report.ts'],
          ...root(3),
        },
      },
      { test: { name: 'cluster', include: ['test/cluster/**/*.test.ts'], ...root(4) } },
    ],
  },
})
