// SPDX-License-Identifier: Apache-2.0
/**
 * What the agent knew last, for the plugin while no agent answers: a node that boots without it still starts the pods that
 * are not enrolled, and none of the others.
 */
import * as fs from 'node:fs'
import { basename, dirname, join } from 'node:path/posix'
import { isAbsent } from '../linux/path.ts'
import { sidecarStatus } from '../policy/decide.ts'
import { canSelect, type EnablementSelector, type Labels, parseSelectors } from '../policy/select.ts'
import { RemedyError } from '../remedy.ts'
import { validateEnrollment } from '../schema/agent-file.gen.cjs'
import { faultFoundBy, parse } from './protocol.ts'

const fileVersion = 1
const rewrite = 'the ambridge agent writes it anew: start it on this node'

export interface NodeEnrollment {
  readonly node: string
  readonly selectors: readonly EnablementSelector[]
  readonly excludeNamespaces: readonly string[]
  /** Pods with a sidecar are enrolled, whatever the selectors say. */
  readonly sidecar: boolean
  /** Name → labels. Of the whole cluster. */
  readonly namespaces: Readonly<Record<string, Labels>>
  /** `namespace/name` → what was decided. Of this node. */
  readonly pods: Readonly<Record<string, KnownPod>>
}

export interface KnownPod {
  /** The API server's; for a static pod the kubelet's, too. */
  readonly uids: readonly string[]
  readonly enroll: boolean
  readonly reason: string
}

export interface AskedPod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  /** Absent: the runtime does not pass them. */
  readonly annotations?: Readonly<Record<string, string>> | null
}

/** `enroll` undefined: nobody can tell. */
export interface Recollection {
  readonly enroll: boolean | undefined
  readonly reason: string
}

/** What can be said of a pod without the agent. A pod that may be enrolled is never said not to be. */
export function recall(enrollment: NodeEnrollment, pod: AskedPod): Recollection {
  const { excludeNamespaces, namespaces, pods, selectors, sidecar } = enrollment
  const { namespace, annotations } = pod
  const known = entryOf(pods, `${namespace}/${pod.name}`)
  if (known?.uids.includes(pod.uid)) return { enroll: known.enroll, reason: known.reason }
  if (excludeNamespaces.includes(namespace)) return no(`namespace ${namespace} is in excludeNamespaces`)
  if (sidecar && (!annotations || sidecarStatus in annotations)) return unknown('it may have a sidecar')
  const labels = entryOf(namespaces, namespace)
  if (labels === undefined) return unknown(`namespace ${namespace} is not in it`)
  if (canSelect(selectors, labels)) return unknown(`pods of namespace ${namespace} may be selected`)
  return no(`no pod of namespace ${namespace} is selected`)
}

function no(reason: string): Recollection {
  return { enroll: false, reason }
}

function unknown(why: string): Recollection {
  return { enroll: undefined, reason: `the pod is not in it, and ${why}` }
}

/** A namespace can be called `constructor`. */
function entryOf<T>(values: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(values, key) ? values[key] : undefined
}

/** Throws RemedyError that names the file: it is not there, not root's alone, or not understood. */
export function readEnrollment(path: string): NodeEnrollment {
  const document = parse(readText(path))
  const version = (document as { version?: unknown } | null | undefined)?.version
  if (typeof version === 'number' && version !== fileVersion) {
    throw new RemedyError(`${path} has version ${version}, this plugin reads ${fileVersion}`, rewrite)
  }
  if (document === undefined) throw corrupt(path, 'it is not JSON')
  if (!validateEnrollment(document)) throw corrupt(path, faultFoundBy(validateEnrollment))
  const enrollment = document as NodeEnrollment
  try {
    return { ...enrollment, selectors: parseSelectors(enrollment.selectors) }
  } catch (cause) {
    throw corrupt(path, (cause as Error).message)
  }
}

function corrupt(path: string, fault: string): RemedyError {
  return new RemedyError(`${path} is not understood: ${fault}`, rewrite)
}

/** Not a link's target, nor what others may have written; a FIFO in its place is not waited for. */
function readText(path: string): string {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants
  try {
    const fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    try {
      const stat = fs.fstatSync(fd)
      if (stat.isFile() && stat.uid === 0 && (stat.mode & 0o022) === 0) return fs.readFileSync(fd, 'utf8')
    } finally {
      fs.closeSync(fd)
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const fault = code !== 'ELOOP' && isAbsent(cause) ? 'is not there' : `cannot be read: ${code}`
    throw new RemedyError(`${path} ${fault}`, rewrite, { cause })
  }
  throw new RemedyError(`${path} is not a file that root alone can write`, rewrite)
}

/** Whoever reads it finds the old content or the new one, also after a crash of the node. */
export function writeEnrollment(path: string, enrollment: NodeEnrollment): void {
  const temporary = `${path}.${process.pid}.tmp`
  fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  removeTemporary(path)
  try {
    const text = `${JSON.stringify({ version: fileVersion, ...enrollment })}\n`
    fs.writeFileSync(temporary, text, { mode: 0o600, flag: 'wx', flush: true })
    fs.renameSync(temporary, path)
  } catch (err) {
    fs.rmSync(temporary, { force: true })
    throw err
  }
}

/** Its own, for process ids repeat, and those of agents that were killed while they wrote. */
function removeTemporary(path: string): void {
  const [dir, prefix] = [dirname(path), `${basename(path)}.`]
  for (const name of fs.readdirSync(dir)) {
    const isOurs = name.startsWith(prefix) && /^\d+\.tmp$/.test(name.slice(prefix.length))
    if (isOurs) fs.rmSync(join(dir, name), { force: true })
  }
}
