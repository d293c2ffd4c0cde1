// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { commands, envFor, failure, netConf, runInProcess, versions } from './support.ts'

const supported = versions.join(', ')

test('VERSION answers with all supported versions, and reads neither stdin nor another variable', async () => {
  const env = { CNI_COMMAND: 'VERSION' }
  for (const stdin of ['', '{', '{"cniVersion":"0.1.0"}']) {
    const { code, stdout, requests } = await runInProcess(env, stdin)
    expect({ code, requests }).toEqual({ code: 0, requests: [] })
    expect(stdout).toBe(
      '{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n',
    )
  }
})

const introducedIn: Record<string, string> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' }
const pairs = versions.flatMap((version) =>
  commands.filter((command) => command !== 'VERSION').map((command) => [version, command] as const),
)

test.for(pairs)('[%s] %s runs if this version of the specification has it', async ([version, command]) => {
  const first = introducedIn[command] ?? '0.3.0'
  const { code, stdout, requests } = await runInProcess(envFor(command), netConf({ cniVersion: version }))
  if (versions.indexOf(version) >= versions.indexOf(first)) {
    expect(code).toBe(0)
    expect(requests).toMatchObject([{ command, config: { cniVersion: version } }])
    expect(stdout).toBe(command === 'ADD' ? `{"cniVersion":"${version}"}\n` : '')
    return
  }
  expect({ code, requests }).toEqual({ code: 1, requests: [] })
  expect(JSON.parse(stdout)).toEqual({
    cniVersion: version,
    code: 1,
    msg: `CNI version ${version} has no ${command}`,
    details: `${command} exists from ${first} on: raise cniVersion in the network configuration`,
  })
})

const foreign = ['0.1.0', '0.2.0', '0.3', '1.2.0', '2.0.0', '', ' 1.1.0', '1.1.0 ', '__proto__']

test.for(foreign)('cniVersion "%s" is refused with code 1, in the latest version', async (version) => {
  for (const command of ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS']) {
    expect(await failure(envFor(command), netConf({ cniVersion: version }))).toEqual({
      cniVersion: '1.1.0',
      code: 1,
      msg: `incompatible CNI version: "${version}"`,
      details: `set cniVersion to one of ${supported} in the network configuration`,
    })
  }
})

test('a configuration without cniVersion is of 0.1.0 or 0.2.0, so it is refused with code 1', async () => {
  expect(await failure(envFor('ADD'), { name: 'pods', type: 'ambridge' })).toEqual({
    cniVersion: '1.1.0',
    code: 1,
    msg: 'incompatible CNI version: without cniVersion (0.1.0 or 0.2.0)',
    details: `set cniVersion to one of ${supported} in the network configuration`,
  })
})
