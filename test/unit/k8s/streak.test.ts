// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { ClusterError } from '../../../src/k8s/error.ts'
import { FailureStreak } from '../../../src/k8s/streak.ts'
import { defaultTiming } from '../../../src/k8s/timing.ts'
import { createLogger, type Entry } from '../../../src/log.ts'

const never = { ...defaultTiming, steadyMs: Number.POSITIVE_INFINITY }
const always = { ...defaultTiming, steadyMs: 0 }
const refused = new ClusterError('refused', 'start it')
const forbidden = new ClusterError('forbidden', 'allow it', { status: 403 })

function streakOf(timing = never) {
  const entries: Entry[] = []
  const sink = { write: (entry: Entry) => void entries.push(entry), flush: async () => undefined }
  const streak = new FailureStreak(createLogger('info', sink), timing)
  return { streak, told: () => entries.map(({ level, error, message }) => `${level} ${error ?? message}`) }
}

test('pauses double, from 100 ms to 10 s, and are never the same for all', () => {
  const { streak } = streakOf()
  for (const most of [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]) {
    const pause = streak.ended(refused)
    expect(pause).toBeGreaterThanOrEqual(most / 2)
    expect(pause).toBeLessThanOrEqual(most)
  }
  expect(new Set(Array.from({ length: 20 }, () => streak.ended(refused))).size).toBeGreaterThan(1)
})

test('a watch that is answered and ends at once does not end the streak', () => {
  const { streak } = streakOf()
  for (let attempt = 0; attempt < 10; attempt += 1) {
    streak.opened()
    streak.ended(undefined)
  }
  expect(streak.ended(undefined)).toBeGreaterThanOrEqual(5_000)
})

test('a watch that lived ends the streak', () => {
  const { streak } = streakOf(always)
  for (let attempt = 0; attempt < 10; attempt += 1) streak.ended(refused)
  streak.opened()
  expect(streak.ended(undefined)).toBeLessThanOrEqual(100)
})

test('Retry-After is respected, up to a minute', () => {
  const busy = (retryAfterMs: number) => new ClusterError('busy', 'wait', { status: 429, retryAfterMs })
  const { streak } = streakOf()
  expect(streak.ended(busy(30_000))).toBe(30_000)
  expect(streak.ended(busy(3_600_000))).toBe(60_000)
})

test('each failure is told once in a streak, and the end of it', () => {
  const { streak, told } = streakOf()
  for (const err of [refused, refused, forbidden, refused, forbidden]) streak.ended(err)
  streak.opened()
  expect(told()).toEqual(['warn refused', 'warn forbidden', 'info the API server is followed again'])
  streak.ended(refused)
  streak.opened()
  expect(told()).toHaveLength(3)
})

test('what expires is not told', () => {
  const { streak, told } = streakOf()
  streak.opened()
  streak.ended(new ClusterError('expired', 'list', { status: 410 }))
  expect(told()).toEqual([])
})
