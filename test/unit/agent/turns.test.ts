// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { Turns } from '../../../installer/agent/turns.ts'

/** Work that ends when told to. */
function work() {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  return { promise, resolve, reject }
}

test('so many run at once; the others follow in order, also after a failure', async () => {
  const turns = new Turns(2)
  const [a, b, c, d] = [work(), work(), work(), work()]
  const started: string[] = []
  const run = (name: string, { promise }: ReturnType<typeof work>) =>
    turns.run(() => {
      started.push(name)
      return promise
    })
  const results = Promise.allSettled([run('a', a), run('b', b), run('c', c), run('d', d)])
  expect(started).toEqual(['a', 'b'])
  b.reject(new Error('no'))
  await expect.poll(() => started).toEqual(['a', 'b', 'c'])
  for (const each of [a, c, d]) each.resolve('done')
  expect((await results).map(({ status }) => status)).toEqual([
    'fulfilled',
    'rejected',
    'fulfilled',
    'fulfilled',
  ])
  // Both places are free again.
  started.length = 0
  const [e, f, g] = [work(), work(), work()]
  const more = [run('e', e), run('f', f), run('g', g)]
  expect(started).toEqual(['e', 'f'])
  for (const each of [e, f, g]) each.resolve('done')
  await Promise.all(more)
})
