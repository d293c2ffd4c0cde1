// SPDX-License-Identifier: Apache-2.0
import { type ExecResult, waitFor } from '../support/exec.ts'
import type { NodeSpace } from '../support/node-space.ts'

/** What the tests read of an object; the rest is there, too. */
export interface KubeObject {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
}

export interface PodObject extends KubeObject {
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly podIPs?: readonly { readonly ip: string }[]
    readonly conditions?: readonly { readonly type: string; readonly status: string }[]
    readonly containerStatuses?: readonly { readonly restartCount: number }[]
  }
}

/** An object's kind and name, and its namespace: what kubectl takes. */
export interface Ref {
  readonly kind: string
  readonly name: string
  /** Default: `default`. */
  readonly namespace?: string
}

/** kubectl in the node, as administrator. */
export class Kubectl {
  readonly #node: NodeSpace
  readonly #command: string
  readonly #kubeconfig: string

  constructor(node: NodeSpace, command: string, kubeconfig: string) {
    this.#node = node
    this.#command = command
    this.#kubeconfig = kubeconfig
  }

  /** Whatever the exit code is. */
  try(args: readonly string[], options: { input?: string; timeoutMs?: number } = {}): Promise<ExecResult> {
    return this.#node.inNode(this.#command, [`--kubeconfig=${this.#kubeconfig}`, ...args], options)
  }

  async run(args: readonly string[], options: { input?: string; timeoutMs?: number } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.try(args, options)
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
    return stdout
  }

  async apply(...objects: readonly object[]): Promise<void> {
    await this.run(['apply', '-f', '-'], { input: objects.map((each) => JSON.stringify(each)).join('\n') })
  }

  /** Undefined: there is none. */
  async find<T extends KubeObject>(ref: Ref): Promise<T | undefined> {
    const text = await this.run(['get', ...named(ref), '-o', 'json', '--ignore-not-found'])
    return text === '' ? undefined : (JSON.parse(text) as T)
  }

  async list<T extends KubeObject>(kind: string, args: readonly string[]): Promise<T[]> {
    const { items } = JSON.parse(await this.run(['get', kind, '-o', 'json', ...args])) as { items: T[] }
    return items
  }

  /** And waits until it is gone. */
  async delete(ref: Ref): Promise<void> {
    await this.run(['delete', ...named(ref), '--ignore-not-found', '--wait', '--timeout=60s'], {
      timeoutMs: 70_000,
    })
  }

  /** `KEY=VALUE`, or `KEY-` to take it off. */
  async label(ref: Ref, ...labels: readonly string[]): Promise<void> {
    await this.run(['label', '--overwrite', ...named(ref), ...labels])
  }

  /** In the first container of a pod. */
  exec(ref: Omit<Ref, 'kind'>, command: readonly string[]): Promise<ExecResult> {
    const { name, namespace = 'default' } = ref
    return this.try(['exec', '-n', namespace, name, '--', ...command])
  }

  /** Until all pods of a namespace with these labels, one at least, are Ready. */
  async waitReady(namespace: string, labels: string, timeoutMs = 60_000): Promise<PodObject[]> {
    const ready = async (): Promise<PodObject[] | false> => {
      const pods = await this.list<PodObject>('pods', ['-n', namespace, '-l', labels])
      return pods.length > 0 && pods.every(isReady) && pods
    }
    return await waitFor(`pods ${labels} of ${namespace} are Ready`, ready, {
      timeoutMs,
      everyMs: 200,
    }).catch(async (err: unknown) => {
      throw new Error(`${String(err)}\n${await this.describe(namespace)}`)
    })
  }

  /** For the message of a failure: pods and events. */
  async describe(namespace: string): Promise<string> {
    const { stdout: pods } = await this.try(['get', 'pods', '-n', namespace, '-o', 'wide'])
    const { stdout: events } = await this.try(['get', 'events', '-n', namespace, '--sort-by=.lastTimestamp'])
    return `${pods}${events}`
  }
}

export function isReady({ status }: PodObject): boolean {
  return status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') ?? false
}

function named({ kind, name, namespace = 'default' }: Ref): string[] {
  return ['-n', namespace, kind, name]
}
