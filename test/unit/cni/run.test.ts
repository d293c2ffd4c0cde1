// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { CniCode, CniError } from '../../../src/cni/errors.ts'
import { type CniIo, runCni } from '../../../src/cni/run.ts'
import { commands, envFor, failure, netConf, runInProcess, versions } from './support.ts'

const prevResults: Readonly<Record<string, unknown>> = {
  '0.3.0': { ips: [{ version: '4', address: '10.1.0.5/24', gateway: '10.1.0.1', interface: 0 }], dns: {} },
  '0.3.1': { cniVersion: '0.3.1', interfaces: [{ name: 'eth0', sandbox: '/var/run/netns/blue' }] },
  '0.4.0': { cniVersion: '0.4.0', ips: [{ version: '6', address: 'fd00::5/64' }] },
  '1.0.0': { cniVersion: '1.0.0', ips: [{ address: '10.1.0.5/24' }], dns: { nameservers: ['10.0.0.10'] } },
  '1.1.0': {
    cniVersion: '1.1.0',
    interfaces: [
      { name: 'eth0', mac: '00:11:22:33:44:55', mtu: 1450, socketPath: '', pciID: '0000:00:1f.6' },
    ],
    routes: [
      { dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1400, advmss: 1360, priority: 5, table: 100, scope: 253 },
    ],
    unheardOf: { by: ['this', 'version'] },
  },
}

test.for(versions)('[%s] ADD answers with prevResult as it came', async (version) => {
  const stdin = netConf({ cniVersion: version, prevResult: prevResults[version] })
  const { code, stdout, writes } = await runInProcess(envFor('ADD'), stdin)
  expect({ code, writes }).toEqual({ code: 0, writes: 1 })
  expect(JSON.parse(stdout)).toEqual({ cniVersion: version, ...(prevResults[version] as object) })
  expect(stdout.endsWith('}\n')).toBe(true)
})

test.for(versions)(
  '[%s] ADD puts the version that it was asked in over that of prevResult',
  async (version) => {
    const prevResult = { ips: [], cniVersion: '0.2.0', dns: {} }
    const { stdout } = await runInProcess(envFor('ADD'), netConf({ cniVersion: version, prevResult }))
    expect(stdout).toBe(`{"ips":[],"cniVersion":"${version}","dns":{}}\n`)
  },
)

test.for([undefined, null])(
  'ADD without a previous plugin answers with cniVersion alone (prevResult %s)',
  async (prevResult) => {
    const { code, stdout } = await runInProcess(envFor('ADD'), netConf({ cniVersion: '0.3.1', prevResult }))
    expect({ code, stdout }).toEqual({ code: 0, stdout: '{"cniVersion":"0.3.1"}\n' })
  },
)

test.for(['DEL', 'CHECK', 'GC', 'STATUS'])('%s succeeds without a word', async (command) => {
  const { code, writes, requests } = await runInProcess(envFor(command), netConf())
  expect({ code, writes, handled: requests.map((request) => request.command) }).toEqual({
    code: 0,
    writes: 0,
    handled: [command],
  })
})

test.for(versions)('[%s] an error is answered in the version that it was asked in', async (version) => {
  const add = async () => {
    throw new CniError(CniCode.tryAgain, 'cannot enroll pod shop/cart', { details: 'the agent is away' })
  }
  expect(await failure(envFor('ADD'), netConf({ cniVersion: version }), { add })).toEqual({
    cniVersion: version,
    code: 11,
    msg: 'cannot enroll pod shop/cart',
    details: 'the agent is away',
  })
})

test.for(commands.filter((command) => command !== 'VERSION'))(
  '%s: what a handler throws is printed and logged once',
  async (command) => {
    const fail = async () => {
      throw new Error('out of luck')
    }
    const handlers = { add: fail, del: fail, check: fail, gc: fail, status: fail }
    const { code, stdout, writes, errors } = await runInProcess(envFor(command), netConf(), handlers)
    expect({ code, writes }).toEqual({ code: 1, writes: 1 })
    expect(JSON.parse(stdout)).toMatchObject({ code: 999, msg: 'out of luck' })
    expect(errors.map(({ message }) => message)).toEqual(['out of luck'])
  },
)

test('a handler that throws before it returns a promise is no exception', async () => {
  const del = () => {
    throw new Error('at once')
  }
  expect(await failure(envFor('DEL'), netConf(), { del })).toMatchObject({ code: 999, msg: 'at once' })
})

test('a result that cannot be written as JSON is an error before anything is done', async () => {
  const nested = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
  const conf = JSON.stringify(netConf({ prevResult: { deep: 0 } })).replace('"deep":0', `"deep":${nested}`)
  const { code, stdout, requests } = await runInProcess(envFor('ADD'), conf)
  expect({ code, requests }).toEqual({ code: 1, requests: [] })
  expect(JSON.parse(stdout)).toMatchObject({
    code: 999,
    msg: 'cannot write the result as JSON',
    details: expect.stringContaining('call stack'),
  })
})

/** runCni with a single fake broken. */
async function broken(
  command: string,
  io: Partial<CniIo>,
): Promise<{ code: number; out: string[]; logged: string[] }> {
  const out: string[] = []
  const logged: string[] = []
  const nothing = async () => undefined
  const code = await runCni(
    { add: nothing, del: nothing, check: nothing, gc: nothing, status: nothing },
    {
      env: envFor(command),
      stdin: () => JSON.stringify(netConf()),
      stdout: (text) => void out.push(text),
      logError: (error) => void logged.push(`${error.code} ${error.message}: ${error.details}`),
      ...io,
    },
  )
  return { code, out, logged }
}

function thrower(message: string): () => never {
  return () => {
    throw new Error(message)
  }
}

test('a result that stdout does not take is a failure with code 5 in the log', async () => {
  expect(await broken('ADD', { stdout: thrower('EPIPE') })).toEqual({
    code: 1,
    out: [],
    logged: ['5 cannot write to stdout: EPIPE'],
  })
})

test('a log that fails changes neither the answer nor the exit code', async () => {
  const { code, out } = await broken('ADD', { stdin: () => '{', logError: thrower('ENOSPC') })
  expect(code).toBe(1)
  expect(out.map((text) => JSON.parse(text).code)).toEqual([6])
})

test('a stdin that cannot be read is an error', async () => {
  const { code, out } = await broken('DEL', { stdin: thrower('EIO') })
  expect(code).toBe(1)
  expect(out.map((text) => JSON.parse(text))).toMatchObject([{ cniVersion: '1.1.0', code: 999, msg: 'EIO' }])
})

test.for([['VERSION'], ['NONSENSE']])(
  '%s does not touch stdin, which may be a terminal',
  async ([command = '']) => {
    let reads = 0
    await broken(command, { stdin: () => `${++reads}` })
    expect(reads).toBe(0)
  },
)
