// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../log.ts'
import { redirection } from '../policy/decide.ts'
import { ApiClient, type Request } from './api-client.ts'
import { Credentials } from './credentials.ts'
import { ClusterError } from './error.ts'
import { Reflector, type ReflectorOptions } from './reflector.ts'
import { FailureStreak } from './streak.ts'
import { defaultTiming, type Timing } from './timing.ts'
import { type ApiObject, type NamespaceView, namespaceView, type PodView, podView } from './view.ts'
import { type Named, ViewStore } from './view-store.ts'

export interface ClusterOptions {
  /** Absent: the service account of the pod. */
  readonly kubeconfig?: string
  /** Whose pods are followed. */
  readonly nodeName: string
  readonly log: Logger
  readonly timing?: Partial<Timing>
  /**
   * Additions (no `before`), changes of the view, and deletions (no `now`), also those that happened unseen. What it throws
   * is logged.
   */
  onPod(now: PodView | undefined, before: PodView | undefined): void
  onNamespace(now: NamespaceView | undefined, before: NamespaceView | undefined): void
}

/** With a uid, it is that pod and no later one of its name. */
export interface PodName {
  readonly namespace: string
  readonly name: string
  readonly uid?: string
}

/** The pods of this node and all namespaces, as the API server tells them. */
export class Cluster implements AsyncDisposable {
  readonly #closing = new AbortController()
  readonly #client: ApiClient
  readonly #timing: Timing
  readonly #pods: ViewStore<PodView>
  readonly #namespaces: ViewStore<NamespaceView>
  readonly #reflectors: readonly Pick<Reflector<Named>, 'run' | 'synced' | 'isSynced'>[]
  #running: Promise<unknown> = Promise.resolve()
  #directReads = 0

  private constructor(options: ClusterOptions, credentials: Credentials) {
    const { log, nodeName, onPod, onNamespace } = options
    this.#timing = { ...defaultTiming, ...options.timing }
    this.#client = new ApiClient(credentials, this.#closing.signal)
    this.#pods = new ViewStore(podKey, logged(onPod, log))
    this.#namespaces = new ViewStore(({ name }) => name, logged(onNamespace, log))
    const follow = <V extends Named>(
      what: Pick<ReflectorOptions<V>, 'resource' | 'query' | 'store' | 'viewOf'>,
    ) =>
      new Reflector({
        ...what,
        client: this.#client,
        timing: this.#timing,
        streak: new FailureStreak(log.with({ resource: what.resource }), this.#timing),
        closed: this.#closing.signal,
      })
    const query = { fieldSelector: `spec.nodeName=${nodeName}` }
    this.#reflectors = [
      follow({ resource: 'pods', query, store: this.#pods, viewOf: podView }),
      follow({ resource: 'namespaces', store: this.#namespaces, viewOf: namespaceView }),
    ]
  }

  /** Reads the credentials; throws RemedyError when there are none. Nothing is asked yet. */
  static connect(options: ClusterOptions): Cluster {
    const { kubeconfig } = options
    return new Cluster(options, Credentials.load(kubeconfig === undefined ? {} : { kubeconfig }))
  }

  /** Resolves when pods and namespaces are known; tries for ever. Rejects only when closed before. */
  async start(): Promise<void> {
    const { signal } = this.#closing
    const closed = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason))
    })
    this.#running = Promise.all(this.#reflectors.map((reflector) => reflector.run()))
    await Promise.race([Promise.all(this.#reflectors.map(({ synced }) => synced)), closed])
  }

  /** Both have been listed. */
  get synced(): boolean {
    return this.#reflectors.every(({ isSynced }) => isSynced)
  }

  pods(): PodView[] {
    return this.#pods.all()
  }

  pod(namespace: string, name: string): PodView | undefined {
    return this.#pods.get(podKey({ namespace, name }))
  }

  namespaces(): NamespaceView[] {
    return this.#namespaces.all()
  }

  namespace(name: string): NamespaceView | undefined {
    return this.#namespaces.get(name)
  }

  /** Asks the API server, which knows a new pod before its watchers do. Undefined: there is none. Throws ClusterError. */
  async readPod(namespace: string, name: string): Promise<PodView | undefined> {
    const subject = `pod ${podKey({ namespace, name })}`
    const read = await this.#read({
      verb: 'get',
      resource: 'pods',
      subject,
      path: podPath({ namespace, name }),
    })
    return read && podView(read)
  }

  async readNamespace(name: string): Promise<NamespaceView | undefined> {
    const path = `/api/v1/namespaces/${encodeURIComponent(name)}`
    const read = await this.#read({ verb: 'get', resource: 'namespaces', subject: `namespace ${name}`, path })
    return read && namespaceView(read)
  }

  /** How often the API server was asked for one object. */
  get directReads(): number {
    return this.#directReads
  }

  async #read(request: Request): Promise<ApiObject | undefined> {
    this.#directReads += 1
    try {
      return await this.#client.json<ApiObject>(request, this.#timing.readMs)
    } catch (err) {
      if (err instanceof ClusterError && err.status === 404) return undefined
      throw err
    }
  }

  /** By its status: that needs fewer rights than a change of the pod. A pod that is gone is fine. Throws ClusterError. */
  async setRedirection(pod: PodName, value: 'enabled' | 'pending' | undefined): Promise<void> {
    const metadata = {
      annotations: { [redirection]: value ?? null },
      ...(pod.uid === undefined ? {} : { uid: pod.uid }),
    }
    try {
      await this.#client.json(
        {
          verb: 'patch',
          resource: 'pods/status',
          subject: `the status of pod ${podKey(pod)}`,
          path: `${podPath(pod)}/status`,
          body: { metadata },
        },
        this.#timing.readMs,
      )
    } catch (err) {
      if (!isGone(err)) throw err
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await this.#running
  }
}

function podKey({ namespace, name }: PodName): string {
  return `${namespace}/${name}`
}

function podPath({ namespace, name }: PodName): string {
  return `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`
}

/** There is no pod of the name, or it has another uid. */
function isGone(err: unknown): boolean {
  if (!(err instanceof ClusterError)) return false
  return err.status === 404 || (err.status === 422 && err.message.includes('metadata.uid'))
}

/** A handler that throws must not stop the rest. */
function logged<A extends unknown[]>(handler: (...args: A) => void, log: Logger): (...args: A) => void {
  return (...args) => {
    try {
      handler(...args)
    } catch (err) {
      log.error('a change of the cluster could not be handled', { error: err })
    }
  }
}
