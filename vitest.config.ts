// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config'

// The root tests share one kernel, and setns needs the main thread of a process.
const root = { pool: 'forks', fileParallelism: false, testTimeout: 60_000, hookTimeout: 120_000 } as const

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      { test: { name: 'bpf', include: ['test/bpf/**/*.test.ts'], ...root } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...root } },
    ],
  },
})
