// SPDX-License-Identifier: Apache-2.0
/** What the plugin answers to mistakes: the whole error object, as a container runtime shows it to the user. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { explainLoadError } from '../../installer/programs/features.ts'
import { openObject } from '../../src/bpf/object.ts'
import { ambridgePath } from '../support/ambridge.ts'
import { run, tryRun } from '../support/exec.ts'
import { Mesh } from '../support/mesh.ts'

let mesh: Mesh
let dir: string

beforeAll(async () => {
  mesh = await Mesh.create({ hosts: 1 })
  dir = mkdtempSync(join(tmpdir(), `ambt${process.pid}-bad`))
  writeFileSync(join(dir, 'file'), '')
  await run('mkfifo', [join(dir, 'fifo')])
})
afterAll(async () => {
  rmSync(dir, { recursive: true })
  await mesh?.dispose()
})

interface Call {
  readonly command?: string
  /** Replaces variables; undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** More keys of a configuration that enrolls the pod. */
  readonly conf?: object
  /** Instead of a configuration. */
  readonly stdin?: string
  /** The command that runs the plugin. */
  readonly through?: readonly string[]
}

interface ErrorObject {
  readonly cniVersion: string
  readonly code: number
  readonly msg: string
  readonly details: string
}

/** The error object that the call prints; it has to fail, and to print nothing else. */
async function refusalOf({
  command = 'ADD',
  env = {},
  conf = {},
  stdin,
  through = [],
}: Call): Promise<ErrorObject> {
  const complete = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c0ffee',
    CNI_NETNS: mesh.host(0).netns.path,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart',
    ...env,
  }
  const set = Object.entries(complete).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]]))
  const [file = '', ...args] = [...through, ambridgePath()]
  const input = stdin ?? JSON.stringify({ ...mesh.conf(), ...conf })
  const { code, stdout } = await tryRun(file, args, { env: Object.fromEntries(set), input })
  expect({ code, lines: stdout.split('\n').length }).toEqual({ code: 1, lines: 2 })
  expect((await mesh.status()).pods).toEqual([])
  return JSON.parse(stdout)
}

const inPod = 'cannot enroll pod shop/cart'
const loadHint = 'run "ambridge load" on this node (the ambridge agent does it)'
const rootHint = 'the container runtime must run the plugin as root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)'

describe('stdin:', () => {
  const details = 'the container runtime writes it to stdin; by hand: CNI_COMMAND=… ambridge < network.json'

  test.for(['', ' \n'])('nothing: %j', async (stdin) => {
    const msg = 'no network configuration on stdin'
    expect(await refusalOf({ stdin })).toEqual({ cniVersion: '1.1.0', code: 6, msg, details })
  })

  test('closed', async () => {
    const through = ['sh', '-c', 'exec "$0" <&-']
    expect(await refusalOf({ through })).toMatchObject({ cniVersion: '1.1.0', code: 6 })
  })

  test.for([
    ['{"cniVersion": "1.0.0",\n "name" "x"}', 'line 2, column 9 (position 32)', 'Expected'],
    ['{"cniVersion": "1.0.0"', 'line 1, column 23 (position 22)', 'Expected'],
    ['cniVersion: 1.0.0', 'line 1, column 1 (position 0)', 'Unexpected token'],
  ] as const)('broken JSON: %j', async ([stdin, place, reason]) => {
    expect(await refusalOf({ stdin })).toEqual({
      ...{ cniVersion: '1.1.0', code: 6, msg: `network configuration is not JSON: ${place}` },
      details: expect.stringMatching(`^${reason}`),
    })
  })

  test.for([
    ['[]', 'an array'],
    ['null', 'null'],
    ['"conf"', 'a string'],
  ])('JSON that is no object: %s', async ([stdin = '', what]) => {
    const msg = 'network configuration is not a JSON object'
    expect(await refusalOf({ stdin })).toEqual({
      cniVersion: '1.1.0',
      code: 6,
      msg,
      details: `stdin holds ${what}`,
    })
  })
})

describe('version:', () => {
  const details = 'set cniVersion to one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0 in the network configuration'

  test.for(['0.2.0', '1.2.0', '2.0.0', 'one', ''])('%j', async (cniVersion) => {
    const msg = `incompatible CNI version: ${JSON.stringify(cniVersion)}`
    expect(await refusalOf({ conf: { cniVersion } })).toEqual({ cniVersion: '1.1.0', code: 1, msg, details })
  })

  test('none', async () => {
    const msg = 'incompatible CNI version: without cniVersion (0.1.0 or 0.2.0)'
    expect(await refusalOf({ conf: { cniVersion: undefined } })).toEqual({
      cniVersion: '1.1.0',
      code: 1,
      msg,
      details,
    })
  })

  test.for(['0.3.0', '0.4.0', '1.1.0'])(
    '[%s] an error is told in the version that was asked for',
    async (cniVersion) => {
      expect(await refusalOf({ conf: { cniVersion, mode: 'sideways' } })).toMatchObject({
        cniVersion,
        code: 7,
      })
    },
  )
})

describe('environment:', () => {
  const netns = 'CNI_NETNS (the path of its network namespace, such as /var/run/netns/<name>)'
  const id = 'CNI_CONTAINERID (the id of the container)'
  const ifname = 'CNI_IFNAME (the name of its interface, such as eth0)'

  test.for([
    [
      'CNI_NETNS missing',
      { CNI_NETNS: undefined },
      'CNI_NETNS is not set',
      `ADD needs ${netns}; the container runtime sets it`,
    ],
    [
      'CNI_NETNS empty',
      { CNI_NETNS: '' },
      'CNI_NETNS is not set',
      `ADD needs ${netns}; the container runtime sets it`,
    ],
    [
      'all missing',
      { CNI_CONTAINERID: undefined, CNI_IFNAME: undefined, CNI_NETNS: undefined },
      'CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS are not set',
      `ADD needs ${id}, ${ifname}, ${netns}; the container runtime sets it`,
    ],
    [
      'a container id with a slash',
      { CNI_CONTAINERID: '../etc' },
      'invalid CNI_CONTAINERID: "../etc"',
      'expected a letter or digit, then letters, digits, "_", "." or "-"',
    ],
    [
      'a container id that is too long',
      { CNI_CONTAINERID: 'a'.repeat(129) },
      `CNI_CONTAINERID is too long: "${'a'.repeat(77)}..."`,
      'at most 128 characters are possible, found 129',
    ],
    [
      'an interface name that is too long',
      { CNI_IFNAME: 'sixteen-letters0' },
      'invalid CNI_IFNAME: "sixteen-letters0" is too long',
      'expected 1 to 15 bytes without "/", ":" and blanks, not "." or ".."',
    ],
    [
      'arguments that are no pairs',
      { CNI_ARGS: 'K8S_POD_NAME' },
      'invalid CNI_ARGS: "K8S_POD_NAME" is not a pair',
      'expected KEY=VALUE pairs, separated by ";"',
    ],
  ] as const)('%s', async ([, env, msg, details]) => {
    expect(await refusalOf({ env })).toEqual({ cniVersion: '1.0.0', code: 4, msg, details })
  })

  test.for(['', 'add', 'UPDATE'])('CNI_COMMAND %j', async (command) => {
    expect(await refusalOf({ command })).toEqual({
      cniVersion: '1.1.0',
      code: 4,
      msg: command === '' ? 'CNI_COMMAND is not set' : `unknown CNI_COMMAND: "${command}"`,
      details: 'allowed values are ADD, DEL, CHECK, GC, STATUS, VERSION',
    })
  })
})

describe('CNI_NETNS:', () => {
  const details = 'pass the path of a network namespace in CNI_NETNS, such as /var/run/netns/<name>'
  const isNone = (path: string) => `invalid CNI_NETNS: ${path} is not a network namespace: EINVAL`

  test.for(['ADD', 'CHECK'])('%s of a path where nothing is', async (command) => {
    const path = join(dir, 'nothing')
    const msg = `invalid CNI_NETNS: open network namespace ${path}: ENOENT`
    const conf = { prevResult: {} }
    expect(await refusalOf({ command, conf, env: { CNI_NETNS: path } })).toEqual({
      cniVersion: '1.0.0',
      code: 4,
      msg,
      details,
    })
  })

  test('a path below a file', async () => {
    const path = join(dir, 'file/netns')
    const msg = `invalid CNI_NETNS: open network namespace ${path}: ENOTDIR`
    expect(await refusalOf({ env: { CNI_NETNS: path } })).toEqual({
      cniVersion: '1.0.0',
      code: 4,
      msg,
      details,
    })
  })

  test.for([
    ['a plain file', 'file'],
    ['a directory', '.'],
    ['a FIFO, which is not waited for', 'fifo'],
    ['a device', '/dev/zero'],
    ['a namespace of another kind', '/proc/self/ns/uts'],
  ])('%s', async ([, name = '']) => {
    const path = resolve(dir, name)
    const msg = isNone(path)
    expect(await refusalOf({ env: { CNI_NETNS: path } })).toEqual({
      cniVersion: '1.0.0',
      code: 4,
      msg,
      details,
    })
  })

  test.for(['/proc/self/ns/net', '/proc/thread-self/ns/net'])("the node's own: %s", async (path) => {
    expect(await refusalOf({ env: { CNI_NETNS: path } })).toEqual({
      cniVersion: '1.0.0',
      code: 8,
      msg: `invalid CNI_NETNS: network namespace ${path} is the node's own`,
      details: 'pass the netns of the pod in CNI_NETNS',
    })
  })
})

interface Schema {
  readonly $ref?: string
  readonly type?: string | readonly string[]
  readonly enum?: readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly additionalProperties?: Schema
}

interface Field {
  /** From the top of the document; "0" is an item of a list, "x" any key. */
  readonly keys: readonly string[]
  readonly schema: Schema
}

const root: Schema & { readonly definitions: Readonly<Record<string, Schema>> } = JSON.parse(
  readFileSync(fileURLToPath(new URL('../../conf/schema/netconf.json', import.meta.url)), 'utf8'),
)

function fieldsOf(given: Schema, keys: readonly string[]): Field[] {
  const schema = root.definitions[given.$ref?.replace('#/definitions/', '') ?? ''] ?? given
  const children = Object.entries(schema.properties ?? {})
  if (schema.items) children.push(['0', schema.items])
  if (schema.additionalProperties) children.push(['x', schema.additionalProperties])
  const below = children.flatMap(([key, child]) => fieldsOf(child, [...keys, key]))
  return keys.length === 0 ? below : [{ keys, schema }, ...below]
}

/** The value at `keys`, wrapped in the objects and lists on the way. */
function wrapped(keys: readonly string[], value: unknown): unknown {
  const [key, ...rest] = keys
  if (key === undefined) return value
  return key === '0' ? [wrapped(rest, value)] : { [key]: wrapped(rest, value) }
}

function pathOf(keys: readonly string[]): string {
  return keys.reduce<string>((path, key) => {
    if (key === '0') return `${path}[0]`
    if (!/^\w+$/.test(key)) return `${path}["${key}"]`
    return path === '' ? key : `${path}.${key}`
  }, '')
}

describe('configuration:', () => {
  test.for(fieldsOf(root, []).map((field) => [pathOf(field.keys), field] as const))(
    'the wrong type of %s',
    async ([path, { keys, schema }]) => {
      const wrong = schema.type === undefined || schema.type === 'string' ? 7 : 'wrong'
      const type = [schema.type ?? []].flat().find((name) => name !== 'null')
      const [short, long] = schema.enum
        ? [`one of ${schema.enum.join(', ')}`, `allowed values are ${schema.enum.join(', ')}`]
        : [type, `expected type ${type}`]
      const conf = wrapped(keys, wrong) as object
      const { msg, details, ...rest } = await refusalOf({ conf })
      expect(rest).toEqual({ cniVersion: keys[0] === 'cniVersion' ? '1.1.0' : '1.0.0', code: 7 })
      // An attachment in a list lacks its other field, too.
      expect(msg).toMatch(/^invalid network configuration: /)
      expect(msg.replace(/^.*?: /, '').split('; ')).toContain(`${path} must be ${short}`)
      expect(details.split('; ')).toContain(`${path}: ${long}, found ${JSON.stringify(wrong)}`)
    },
  )

  test('an unknown mode', async () => {
    expect(await refusalOf({ conf: { mode: 'sideways' } })).toEqual({
      cniVersion: '1.0.0',
      code: 7,
      msg: 'invalid network configuration: mode must be one of ambient, ambient-shared, sidecar',
      details: 'mode: allowed values are ambient, ambient-shared, sidecar, found "sideways"',
    })
  })

  test('a name that is none, and a relative path: both are told', async () => {
    expect(await refusalOf({ conf: { name: '-x', bpffs: 'bpf' } })).toEqual({
      cniVersion: '1.0.0',
      code: 7,
      msg: 'invalid network configuration: name must be a letter or digit, then letters, digits, "_", "." or "-"; bpffs must be an absolute path',
      details:
        'name: expected ^[a-zA-Z0-9][a-zA-Z0-9_.\\-]*$, found "-x"; bpffs: expected a path that begins with /, found "bpf"',
    })
  })

  test('CHECK without prevResult', async () => {
    expect(await refusalOf({ command: 'CHECK' })).toEqual({
      cniVersion: '1.0.0',
      code: 7,
      msg: 'invalid network configuration: prevResult is missing',
      details: 'CHECK compares with the result of ADD: the container runtime passes it in prevResult',
    })
  })
})

describe('the node:', () => {
  test.for(['ADD', 'CHECK'])('%s while the programs are not loaded', async (command) => {
    const bpffs = '/sys/fs/bpf/ambt-not-there'
    expect(await refusalOf({ command, conf: { bpffs, prevResult: {} } })).toEqual({
      cniVersion: '1.0.0',
      code: 11,
      msg: command === 'ADD' ? inPod : 'cannot check pod shop/cart',
      details: `the eBPF programs are not loaded: no maps in ${bpffs}/maps; ${loadHint}`,
    })
  })

  test('bpffs is not mounted', async () => {
    expect(await refusalOf({ conf: { bpffs: join(dir, 'ambridge') } })).toEqual({
      cniVersion: '1.0.0',
      code: 11,
      msg: inPod,
      details: `bpffs is not mounted: ${dir} is on another file system; mount it: mount -t bpf bpf /sys/fs/bpf; then ${loadHint}`,
    })
  })

  test('[1.1.0] STATUS while the programs are not loaded', async () => {
    const bpffs = '/sys/fs/bpf/ambt-not-there'
    expect(await refusalOf({ command: 'STATUS', conf: { cniVersion: '1.1.0', bpffs } })).toEqual({
      cniVersion: '1.1.0',
      code: 50,
      msg: `the eBPF programs are not loaded: no maps in ${bpffs}/maps`,
      details: loadHint,
    })
  })

  test('the plugin does not run as root', async () => {
    const through = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']
    expect(await refusalOf({ through })).toEqual({
      cniVersion: '1.0.0',
      code: 100,
      msg: inPod,
      details: `EACCES: permission denied, stat '${mesh.bpffs}/maps/settings'; ${rootHint}`,
    })
  })

  test('no agent answers', async () => {
    const [agentSocket, enrollmentFile] = [join(dir, 'agent.sock'), join(dir, 'enrollment.json')]
    const conf = { enrollment: { source: 'agent' }, agentSocket, enrollmentFile }
    expect(await refusalOf({ conf })).toEqual({
      cniVersion: '1.0.0',
      code: 11,
      msg: 'cannot tell whether pod shop/cart is enrolled',
      details: `no agent: ${agentSocket} is not there; ${enrollmentFile} is not there; start the ambridge agent on this node, or set enrollment.source to "static"`,
    })
  })

  test.for([
    [
      'ambient-shared',
      'no proxy is known for mode ambient-shared; name the netns of the shared ztunnel: ambridge load --shared-proxy-netns PATH',
    ],
    ['sidecar', 'the programs are not attached for mode sidecar; run: ambridge load --sidecar'],
  ])('the programs are not loaded for mode %s', async ([mode, details]) => {
    expect(await refusalOf({ conf: { mode } })).toEqual({
      cniVersion: '1.0.0',
      code: 11,
      msg: inPod,
      details,
    })
  })
})

test('a pod that cannot be captured as it asks is refused by the name of its annotation', async () => {
  const annotation = 'istio.io/reroute-virtual-interfaces'
  const conf = { runtimeConfig: { 'io.kubernetes.cri.pod-annotations': { [annotation]: 'eth1' } } }
  expect(await refusalOf({ conf })).toEqual({
    cniVersion: '1.0.0',
    code: 101,
    msg: `cannot capture a pod with annotation ${annotation}: "eth1"`,
    details: expect.stringContaining('remove the annotation or leave the pod out of the mesh'),
  })
})

describe('a kernel without a needed feature', () => {
  async function compiled(): Promise<Buffer> {
    const source = fileURLToPath(new URL('./testdata/too-new.bpf.c', import.meta.url))
    const multiarch = (await run('gcc', ['-print-multiarch'])).trim()
    const out = join(dir, 'too-new.bpf.o')
    await run('clang', [
      '-O2',
      '-g',
      '-target',
      'bpf',
      `-I/usr/include/${multiarch}`,
      '-c',
      source,
      '-o',
      out,
    ])
    return readFileSync(out)
  }

  test.for([
    ['ambridge_sockops', 'bpf_get_netns_cookie() in sockops (Linux 5.15)'],
    ['ambridge_connect4', 'bpf_get_netns_cookie() in socket address hooks (Linux 5.7)'],
    ['ambridge_inbound', 'sk_lookup (Linux 5.9)'],
  ] as const)('is explained by program and feature: %s', async ([program, feature]) => {
    using object = openObject(await compiled(), { name: 'toonew', pinRoot: mesh.bpffs, captureLog: true })
    for (const name of object.programs()) object.setAutoload(name, name === program)
    let refusal: unknown
    try {
      object.load()
    } catch (err) {
      refusal = explainLoadError(err)
    }
    expect(refusal).toMatchObject({
      name: 'RemedyError',
      message: `kernel ${release()} lacks a needed feature: ${feature}, for program ${program}`,
      remedy: expect.stringMatching(
        /^Linux 5\.15 or newer is needed; the kernel says:\n(.*\n)*.*invalid func unknown#99999/,
      ),
    })
  })
})
