// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { Serial } from '../../../installer/agent/serial.ts'

/** Work that notes when it begins and ends, and ends when it is told. */
function recorder() {
  const events: string[] = []
  const work = (name: string) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const run = async () => {
      events.push(`${name} begins`)
      await promise.finally(() => events.push(`${name} ends`))
    }
    return { run, resolve, reject }
  }
  return { events, work }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

test('work of one key runs one after the other, of different keys at once', async () => {
  const { events, work } = recorder()
  const serial = new Serial()
  const [a, b, c] = [work('a'), work('b'), work('c')]
  const runs = [serial.run('x', a.run), serial.run('x', b.run), serial.run('y', c.run)]
  await settle()
  expect(events).toEqual(['a begins', 'c begins'])
  a.resolve()
  await settle()
  expect(events.slice(2)).toEqual(['a ends', 'b begins'])
  b.resolve()
  c.resolve()
  await Promise.all(runs)
})

test('work that fails does not keep the next from running, and idle waits for all', async () => {
  const { events, work } = recorder()
  const serial = new Serial()
  const [a, b] = [work('a'), work('b')]
  const failing = serial.run('x', a.run)
  void serial.run('x', b.run)
  a.reject(new Error('no'))
  await expect(failing).rejects.toThrow('no')
  const idle = serial.idle().then(() => events.push('idle'))
  await settle()
  expect(events).toEqual(['a begins', 'a ends', 'b begins'])
  b.resolve()
  await idle
  expect(events.slice(3)).toEqual(['b ends', 'idle'])
})
