// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest'
import { entryWith } from '../../../installer/agent/entry.ts'
import { parseLogLevels } from '../../../installer/agent/log-levels.ts'
import { parseHttp, parseZtunnel, policyOf, readSelectors } from '../../../installer/agent/options.ts'
import { defaultSelectors } from '../../../src/policy/select.ts'

const shared = {
  bpffs: '/sys/fs/bpf/x',
  socket: '/run/x.sock',
  enrollmentFile: '/var/lib/x.json',
  excludeNamespaces: undefined,
}

describe('the entry of the plugin', () => {
  test('has what plugin and agent must agree on, and keeps the rest', () => {
    const entry = entryWith('{ "type": "ambridge", "logLevel": "info", "dnsCapture": false }', shared)
    expect(JSON.parse(entry)).toEqual({
      type: 'ambridge',
      logLevel: 'info',
      dnsCapture: false,
      bpffs: shared.bpffs,
      agentSocket: shared.socket,
      enrollmentFile: shared.enrollmentFile,
      excludeNamespaces: ['kube-system'],
    })
    expect(policyOf(entry)).toMatchObject({ mode: 'ambient', dnsCapture: false, egressGuard: false })
  })

  test('excludes the namespaces that the command line names, else its own', () => {
    const own = '{ "type": "ambridge", "excludeNamespaces": ["a"] }'
    expect(JSON.parse(entryWith(own, shared)).excludeNamespaces).toEqual(['a'])
    expect(JSON.parse(entryWith(own, { ...shared, excludeNamespaces: ['b'] })).excludeNamespaces).toEqual([
      'b',
    ])
  })

  test.for([
    { entry: '{', says: 'is not JSON: line 1, column 2' },
    { entry: '[]', says: 'is not a JSON object' },
    {
      entry: '{ "type": "ambridge", "mode": "ambient-shared" }',
      says: 'the agent serves mode ambient, not "ambient-shared"',
    },
    {
      entry: '{ "type": "ambridge", "agentSocket": "/other" }',
      says: 'agentSocket is "/other", the agent\'s is "/run/x.sock"',
    },
    { entry: '{ "type": "ambridge", "logLevel": "loud" }', says: 'logLevel' },
    { entry: '{ "type": "other" }', says: 'must have "type": "ambridge"' },
  ])('is refused when it is $entry', ({ entry, says }) => {
    expect(() => entryWith(entry, shared)).toThrow(says)
  })
})

describe('options', () => {
  test('of ztunnel: NAMESPACE/SERVICEACCOUNT', () => {
    expect(parseZtunnel('mesh/zt')).toEqual({ namespace: 'mesh', serviceAccount: 'zt' })
    for (const wrong of ['ztunnel', 'a/', '/b', 'a/b/c'])
      expect(() => parseZtunnel(wrong)).toThrow('--ztunnel')
  })

  test('of the HTTP server: ADDRESS:PORT', () => {
    expect(parseHttp('127.0.0.1:15014')).toEqual({ host: '127.0.0.1', port: 15014 })
    expect(parseHttp('[::1]:0')).toEqual({ host: '::1', port: 0 })
    for (const wrong of ['15014', ':1', 'a:70000', 'a:']) expect(() => parseHttp(wrong)).toThrow('--http')
  })

  test("of the selectors: YAML, as Istio has it; by default Istio's", () => {
    expect(readSelectors(undefined)).toEqual(defaultSelectors)
    expect(readSelectors('- podSelector: {matchLabels: {a: b}}')).toHaveLength(1)
    expect(() => readSelectors('- podSelector: {matchLabel: {}}')).toThrow('--selectors: ')
    expect(() => readSelectors('/does/not/exist')).toThrow('--selectors: ENOENT')
  })
})

describe('log levels', () => {
  test('are one for all, and others for modules', () => {
    const { level, levelOf } = parseLogLevels('warn,zds:debug')
    expect([level, levelOf('zds'), levelOf('k8s')]).toEqual(['warn', 'debug', 'warn'])
    expect(parseLogLevels('zds:debug').level).toBe('info')
  })

  test.for(['loud', 'zds', 'zds:loud', 'other:info', '', 'zds:info:x'])('%s is none', (text) => {
    expect(() => parseLogLevels(text)).toThrow('--log-level')
  })
})
