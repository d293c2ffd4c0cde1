// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { parseFlocks } from '../../../src/linux/lock.ts'

test('parseFlocks() gives files that are locked or waited for, by flock(2) alone', () => {
  const text = `1: FLOCK  ADVISORY  WRITE 4711 00:04:4026532281 0 EOF
1: -> FLOCK  ADVISORY  WRITE 4712 00:04:4026532281 0 EOF
2: POSIX  ADVISORY  WRITE 812 fe:01:131 1073741826 1073742335
3: FLOCK  ADVISORY  READ  99 103:05:77 0 EOF
4: OFDLCK ADVISORY  READ  -1 00:06:13 0 EOF
`
  expect([...parseFlocks(text)]).toEqual(['00:04:4026532281', '103:05:77'])
  expect([...parseFlocks('')]).toEqual([])
})
