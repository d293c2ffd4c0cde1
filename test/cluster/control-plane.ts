// SPDX-License-Identifier: Apache-2.0
/** The control plane of a cluster of one node, as processes of that node. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type Daemon, waitFor } from '../support/exec.ts'
import type { Node } from '../support/node.ts'
import { Kubectl } from './kubectl.ts'

/** The service address of the API server. There is no kube-proxy: the API server listens there itself. */
const apiAddress = '10.96.0.1'

/** User → groups. The token is the user's name. */
const users = {
  admin: 'system:masters',
  'system:node:node1': 'system:nodes',
} as const

export type User = keyof typeof users

export class ControlPlane {
  readonly kubectl: Kubectl
  readonly #node: Node
  readonly #programs: string
  readonly #dir: string

  /** `programs`: directory of the executables. */
  constructor(node: Node, programs: string) {
    this.#node = node
    this.#programs = programs
    this.#dir = `${node.dir}/control-plane`
    this.kubectl = new Kubectl(node, `${programs}/kubectl`, this.kubeconfig('admin'))
  }

  /** Path of the file. */
  kubeconfig(user: User): string {
    return `${this.#dir}/${user}.kubeconfig`
  }

  async start(): Promise<void> {
    mkdirSync(this.#dir)
    this.#writeFiles()
    await this.#node.inNode('ip', ['address', 'add', `${apiAddress}/32`, 'dev', 'lo'])
    this.#run('etcd', etcdArguments(this.#dir))
    const api = this.#run('kube-apiserver', apiArguments(this.#dir))
    await this.#answers('the API server', api, ['get', '--raw', '/readyz'])
    const admin = [`--kubeconfig=${this.kubeconfig('admin')}`, '--leader-elect=false']
    this.#run('kube-scheduler', admin)
    const controllers = this.#run('kube-controller-manager', [
      ...admin,
      `--service-account-private-key-file=${this.#dir}/sa.key`,
      `--root-ca-file=${this.#dir}/certs/apiserver.crt`,
    ])
    await this.#answers('the controllers', controllers, ['get', 'serviceaccount', 'default'])
  }

  #writeFiles(): void {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    })
    writeFileSync(`${this.#dir}/sa.key`, privateKey)
    writeFileSync(`${this.#dir}/sa.pub`, publicKey)
    const tokens = Object.entries(users).map(([user, group]) => `${user},${user},${user},${group}\n`)
    writeFileSync(`${this.#dir}/tokens.csv`, tokens.join(''))
    for (const user of Object.keys(users) as User[]) {
      writeFileSync(this.kubeconfig(user), JSON.stringify(kubeconfig(this.#dir, user)))
    }
  }

  #run(program: string, args: readonly string[]): Daemon {
    const logFile = `${this.#dir}/${program}.log`
    return this.#node.startInNode(`${this.#programs}/${program}`, args, { logFile })
  }

  async #answers(what: string, daemon: Daemon, args: readonly string[]): Promise<void> {
    await waitFor(
      what,
      async () => {
        if (daemon.hasExited()) throw new Error(`${what}: ended\n${this.log()}`)
        return (await this.kubectl.try(args)).code === 0
      },
      { timeoutMs: 60_000, everyMs: 200 },
    )
  }

  /** The ends of all logs. */
  log(): string {
    const programs = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler']
    return programs.map((program) => `${program}:\n${tail(`${this.#dir}/${program}.log`)}`).join('\n')
  }
}

export function tail(path: string, bytes = 3_000): string {
  try {
    return readFileSync(path, 'utf8').slice(-bytes)
  } catch {
    return ''
  }
}

function kubeconfig(dir: string, user: User): object {
  const cluster = {
    server: `https://${apiAddress}`,
    'certificate-authority': `${dir}/certs/apiserver.crt`,
  }
  return {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: user, user: { token: user } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user } }],
    'current-context': 'test',
  }
}

function etcdArguments(dir: string): string[] {
  return [
    `--data-dir=${dir}/etcd`,
    '--unsafe-no-fsync',
    '--listen-client-urls=http://127.0.0.1:2379',
    '--advertise-client-urls=http://127.0.0.1:2379',
    '--listen-peer-urls=http://127.0.0.1:2380',
  ]
}

function apiArguments(dir: string): string[] {
  return [
    '--etcd-servers=http://127.0.0.1:2379',
    '--bind-address=0.0.0.0',
    `--advertise-address=${apiAddress}`,
    '--secure-port=443',
    `--cert-dir=${dir}/certs`,
    `--token-auth-file=${dir}/tokens.csv`,
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-signing-key-file=${dir}/sa.key`,
    `--service-account-key-file=${dir}/sa.pub`,
    '--service-cluster-ip-range=10.96.0.0/16',
    '--endpoint-reconciler-type=none',
    '--kubelet-preferred-address-types=InternalIP',
  ]
}
