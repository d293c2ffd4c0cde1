// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Credentials } from '../../../src/k8s/credentials.ts'
import { RemedyError } from '../../../src/remedy.ts'

let root: string

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'ambridge-credentials-'))
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(root, { recursive: true, force: true })
})

describe('a pod', () => {
  const folder = () => join(root, 'var/run/secrets/kubernetes.io/serviceaccount')

  beforeEach(() => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', 'fd00::1')
    vi.stubEnv('KUBERNETES_SERVICE_PORT', '443')
    mkdirSync(folder(), { recursive: true })
    writeFileSync(join(folder(), 'ca.crt'), 'authority')
    writeFileSync(join(folder(), 'token'), 'first')
  })

  test('has a service account, whose token is read again when it was replaced', async () => {
    const credentials = Credentials.load({ root })
    expect(credentials.server).toBe('https://[fd00::1]:443')
    const options = await credentials.requestOptions()
    expect(options.headers).toEqual({ Authorization: 'Bearer first' })
    expect(String(options.ca)).toBe('authority')
    writeFileSync(join(folder(), 'token'), 'second')
    credentials.forget()
    expect((await credentials.requestOptions()).headers).toEqual({ Authorization: 'Bearer second' })
  })

  test('without a token', () => {
    rmSync(join(folder(), 'token'))
    const load = () => Credentials.load({ root })
    expect(load).toThrow('cannot read the token of the service account: ENOENT')
    expect(load).toThrow(folder())
  })

  test('that is none', () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '')
    expect(() => Credentials.load({ root })).toThrow('this is no pod: KUBERNETES_SERVICE_HOST')
  })
})

describe('a kubeconfig', () => {
  const config = (server: string, context = 'x') => `
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { server: "${server}" } }]
users: [{ name: u, user: { token: secret } }]
contexts: [{ name: x, context: { cluster: c, user: u } }]
current-context: ${context}
`
  const write = (text: string) => {
    const kubeconfig = join(root, 'kubeconfig')
    writeFileSync(kubeconfig, text)
    return kubeconfig
  }

  test('gives server and token', async () => {
    const kubeconfig = write(config('https://api.example:6443/k8s/clusters/c-1'))
    const credentials = Credentials.load({ kubeconfig })
    expect(credentials.server).toBe('https://api.example:6443/k8s/clusters/c-1')
    expect(credentials.account).toBe(`kubeconfig ${kubeconfig}`)
    expect((await credentials.requestOptions()).headers).toEqual({ Authorization: 'Bearer secret' })
  })

  test.for([
    ['that is missing', undefined, 'cannot read kubeconfig'],
    ['that is empty', '', 'cannot read kubeconfig'],
    ['that is no YAML', '{', 'cannot read kubeconfig'],
    [
      'without the current context',
      config('https://api.example', 'other'),
      'names no API server that can be trusted',
    ],
    ['of a server without TLS', config('http://api.example'), 'names no API server that can be trusted'],
  ] as const)('%s', ([, text, message]) => {
    const kubeconfig = text === undefined ? join(root, 'none') : write(text)
    const load = () => Credentials.load({ kubeconfig })
    expect(load).toThrow(RemedyError)
    expect(load).toThrow(message)
    expect(load).toThrow(kubeconfig)
  })
})
