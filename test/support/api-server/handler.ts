// SPDX-License-Identifier: Apache-2.0
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { json } from 'node:stream/consumers'
import { Collection, type Revision } from './collection.ts'
import { type Asked, type Fault, Faults } from './faults.ts'
import { type KubeObject, makeNamespace, makePod } from './objects.ts'
import { failure, type Reply, send, statusObject } from './reply.ts'
import { type ParsedRequest, parseRequest } from './request.ts'
import { WatchStream } from './watch.ts'

const tooOld = 'too old resource version'

/** Pods and namespaces, and how requests for them are answered. */
export class ApiHandler {
  readonly #revision: Revision = { current: 1 }
  readonly pods = new Collection(this.#revision, makePod, () => this.#flush())
  readonly namespaces = new Collection(this.#revision, makeNamespace, () => this.#flush())
  /** What was asked so far, oldest first. */
  readonly requests: Asked[] = []
  /** The one that is accepted. */
  token = 'stand-in'
  readonly #watches = new Set<WatchStream>()
  readonly #faults = new Faults()
  #expired: { readonly before: number; readonly by: 'event' | 'status' } = { before: 0, by: 'event' }
  #stalled: (() => void)[] | undefined

  /** Those that are open. */
  get watches(): readonly WatchStream[] {
    return [...this.#watches].filter(({ isOver }) => !isOver)
  }

  count(verb?: Asked['verb'], resource?: Asked['resource']): number {
    const isCounted = (asked: Asked) =>
      (verb ?? asked.verb) === asked.verb && (resource ?? asked.resource) === asked.resource
    return this.requests.filter(isCounted).length
  }

  /** From now on, or for the next `times` requests. */
  fail(fault: Fault): void {
    this.#faults.add(fault)
  }

  heal(): void {
    this.#faults.clear()
  }

  /** What is older than the last change is forgotten: watches from before are answered 410. */
  expire(by: 'event' | 'status' = 'event'): void {
    this.#expired = { before: this.#revision.current, by }
  }

  bookmark(): void {
    for (const watch of this.watches) watch.bookmark(this.#revision.current)
  }

  /** Nothing is answered, and watches are silent, until resume(). */
  stall(): void {
    this.#stalled ??= []
  }

  resume(): void {
    const waiting = this.#stalled ?? []
    this.#stalled = undefined
    for (const answer of waiting) answer()
    this.#flush()
  }

  protected async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = parseRequest(request.method ?? '', request.url ?? '')
    const body = asked?.verb === 'patch' ? await json(request) : undefined
    if (asked !== undefined) this.requests.push(asked)
    const answer = () => {
      const reply = asked === undefined ? failure(404) : this.#replyTo(asked, request.headers, body)
      if (reply !== undefined) send(response, reply)
      else if (asked !== undefined) this.#watch(asked, response)
    }
    if (this.#stalled === undefined) answer()
    else this.#stalled.push(answer)
  }

  /** Undefined: a watch begins. */
  #replyTo(asked: ParsedRequest, headers: IncomingHttpHeaders, body: unknown): Reply | undefined {
    const fault = this.#faults.take(asked)
    if (fault !== undefined) {
      const { status, retryAfterSeconds, text = statusObject(status) } = fault
      return { status, body: text, retryAfterSeconds }
    }
    if (headers.authorization !== `Bearer ${this.token}`) return failure(401)
    if (asked.verb === 'list') return this.#list(asked)
    if (asked.verb === 'watch') return this.#refusalToWatch(asked)
    const collection = this.#collection(asked)
    const found = collection.get(asked)
    if (found === undefined) return failure(404, `${asked.resource} "${asked.name}" not found`)
    if (asked.verb === 'get') return { status: 200, body: found }
    if (headers['content-type'] !== 'application/merge-patch+json') return failure(415)
    return patch(collection, found, body as KubePatch)
  }

  #list(asked: ParsedRequest): Reply {
    const kind = asked.resource === 'pods' ? 'PodList' : 'NamespaceList'
    const items = this.#collection(asked).all().filter(selector(asked))
    const metadata = { resourceVersion: String(this.#revision.current) }
    return { status: 200, body: { kind, apiVersion: 'v1', metadata, items } }
  }

  #refusalToWatch({ query }: ParsedRequest): Reply | undefined {
    const { before, by } = this.#expired
    return by === 'status' && Number(query['resourceVersion']) < before ? failure(410, tooOld) : undefined
  }

  #watch(asked: ParsedRequest, response: ServerResponse): void {
    const { resourceVersion, allowWatchBookmarks, timeoutSeconds } = asked.query
    const watch = new WatchStream(response, this.#collection(asked).changes, {
      kind: asked.resource === 'pods' ? 'Pod' : 'Namespace',
      from: Number(resourceVersion),
      bookmarks: allowWatchBookmarks === 'true',
      timeoutSeconds: timeoutSeconds === undefined ? undefined : Number(timeoutSeconds),
      selects: selector(asked),
    })
    if (Number(resourceVersion) < this.#expired.before) {
      watch.send('ERROR', statusObject(410, tooOld))
      watch.end()
      return
    }
    this.#watches.add(watch)
    response.on('close', () => this.#watches.delete(watch))
    watch.flush()
  }

  #collection({ resource }: ParsedRequest): Collection<never> {
    return resource === 'namespaces' ? this.namespaces : this.pods
  }

  #flush(): void {
    if (this.#stalled !== undefined) return
    for (const watch of this.watches) watch.flush()
  }
}

type KubePatch = { readonly metadata?: { readonly uid?: string }; readonly status?: object }

/** Of the status subresource: it takes metadata and status, and nothing else. */
function patch(collection: Collection<never>, { metadata }: KubeObject, body: KubePatch): Reply {
  const uid = body.metadata?.uid ?? metadata.uid
  if (uid !== metadata.uid) {
    const message = `metadata.uid: Invalid value: "${uid}": field is immutable`
    return failure(422, `Pod "${metadata.name}" is invalid: ${message}`)
  }
  const changes = { metadata: body.metadata ?? {}, status: body.status ?? {} }
  return { status: 200, body: collection.update(metadata, changes) }
}

/** The only field selector that is known. */
function selector({ query }: Asked): (object: KubeObject) => boolean {
  const node = /^spec\.nodeName=(.+)$/.exec(query['fieldSelector'] ?? '')?.[1]
  return ({ spec }) => node === undefined || spec['nodeName'] === node
}
