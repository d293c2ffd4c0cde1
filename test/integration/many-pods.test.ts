// SPDX-License-Identifier: Apache-2.0
/** A full node: as many pods as a kubelet takes when it is told to take many. */
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AgentMesh, dataplane, redirection } from '../support/agent-mesh.ts'
import { waitFor } from '../support/exec.ts'
import { type NetnsCrowd, netnsCrowd } from '../support/netns-crowd.ts'
import { type OwnedDaemon, startOwned } from '../support/sock.ts'
import type { ZtunnelStandin } from '../support/standin.ts'

const podCount = 250
/** Of the agent. */
const rssLimitMiB = 150
const timeout = 180_000
const patient = { timeoutMs: 120_000, everyMs: 100 }

let field: AgentMesh
let crowd: NetnsCrowd
let ztunnel: ZtunnelStandin
let processes: OwnedDaemon

beforeAll(async () => {
  field = await AgentMesh.create({ hosts: 1 })
  crowd = await netnsCrowd(podCount)
  ztunnel = await field.ztunnel({ name: 'first' })
  await ztunnel.waitForSnapshot()
  await startPods()
})
afterAll(async () => {
  await processes?.stop()
  await field?.[Symbol.asyncDispose]()
  await crowd?.[Symbol.asyncDispose]()
})

/** Of a namespace without label; each is one process. */
async function startPods(): Promise<void> {
  const { mesh, api } = field
  api.namespaces.create({ name: 'crowd' })
  const commands = crowd.netnses.map(({ name, path, address }) => {
    const uid = randomUUID()
    const cgroup = `${mesh.pods.dir}/pod${uid}/${randomBytes(32).toString('hex')}`
    mkdirSync(cgroup, { recursive: true })
    api.pods.create({ name, namespace: 'crowd', uid, ips: [address] })
    return `sh -c 'echo $$ > ${cgroup}/cgroup.procs; exec nsenter --net=${path} sleep 3600' &`
  })
  const script = `${commands.join('\n')}\nwait`
  processes = await startOwned('crowd', { cgroupDir: mesh.pods.dir }, ['sh', '-c', script])
  const isSleeping = (pid: number) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n'
  await waitFor('the pods', () => mesh.pods.pids().filter(isSleeping).length === podCount, patient)
}

function label(value: string | null): void {
  field.api.namespaces.update({ name: 'crowd' }, { metadata: { labels: { [dataplane]: value } } } as never)
}

/** Milliseconds until every pod of the crowd has it. */
async function annotated(value: string | undefined): Promise<number> {
  const began = performance.now()
  const annotationOf = (name: string) =>
    field.api.pods.read({ name, namespace: 'crowd' }).metadata.annotations[redirection]
  await waitFor(
    `annotation ${value}`,
    () => crowd.netnses.every(({ name }) => annotationOf(name) === value),
    patient,
  )
  return performance.now() - began
}

async function enrolledPods(): Promise<number> {
  return (await field.mesh.status()).pods.filter(({ namespace, alive }) => namespace === 'crowd' && alive)
    .length
}

function served(standin: ZtunnelStandin): number {
  return new Set(
    standin.zdsEvents().flatMap(({ what, uid, error }) => (what === 'add' && error === '' ? [uid] : [])),
  ).size
}

/** Connections of a ztunnel that ended on our side. */
function closedConnections() {
  return field.agent
    .log()
    .filter(({ message }) => ['connection to ztunnel closed', 'ztunnel timed out'].includes(message))
}

/** MiB, of /proc/PID/status. */
function memory(key: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${field.agent.pid}/status`, 'utf8')
  return Math.round(Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024)
}

function report(text: string): void {
  process.stdout.write(`${podCount} pods: ${text}\n`)
}

/** Runs until `done`; gives the longest time in which the agent did not answer, in milliseconds. */
async function longestSilence(done: Promise<unknown>): Promise<number> {
  let [isDone, longest] = [false, 0]
  void done
    .catch(() => undefined)
    .then(() => {
      isDone = true
    })
  while (!isDone) {
    const began = performance.now()
    await field.agent.get('/healthz')
    longest = Math.max(longest, performance.now() - began)
    await sleep(10)
  }
  return Math.round(longest)
}

test('the label of a namespace enrolls all of its running pods, and new pods need not wait for that', {
  timeout,
}, async () => {
  await using pod = await field.pod(0, { namespace: 'mesh' })
  label('ambient')
  const done = annotated('enabled')
  const silence = longestSilence(done)
  await sleep(200)
  const began = performance.now()
  expect(await pod.add()).toMatchObject({ code: 0 })
  const addMs = Math.round(performance.now() - began)
  report(
    `enrolled in ${Math.round(await done)} ms; meanwhile an ADD took ${addMs} ms, the longest silence ${await silence} ms`,
  )
  expect(await enrolledPods()).toBe(podCount)
  expect(served(ztunnel)).toBe(podCount + 1)
  expect(closedConnections()).toEqual([])
  expect(await pod.del()).toMatchObject({ code: 0 })
  field.api.pods.delete(pod)
  await ztunnel.waitForZds(({ what, uid }) => what === 'del' && uid === pod.uid)
})

test('a ztunnel that starts gets them all at once, and the agent stays small', { timeout }, async () => {
  await using fresh = await field.ztunnel({ name: 'fresh' })
  await fresh.waitForSnapshot()
  const { ms } = await field.agent.waitForLog('snapshot sent', ({ count }) => count === podCount)
  report(`snapshot in ${ms} ms; the agent has VmRSS ${memory('VmRSS')} MiB, VmHWM ${memory('VmHWM')} MiB`)
  expect(served(fresh)).toBe(podCount)
  expect(memory('VmRSS')).toBeLessThanOrEqual(rssLimitMiB)
})

test('an agent that is started again knows them all', { timeout }, async () => {
  await field.agent.stop()
  const began = performance.now()
  await field.agent.start()
  report(`the agent started again in ${Math.round(performance.now() - began)} ms`)
  const { ms } = await field.agent.waitForLog('snapshot sent', ({ count }) => count === podCount)
  report(`snapshot in ${ms} ms; the agent has VmRSS ${memory('VmRSS')} MiB, VmHWM ${memory('VmHWM')} MiB`)
  expect(memory('VmRSS')).toBeLessThanOrEqual(rssLimitMiB)
})

test('without the label all are withdrawn', { timeout }, async () => {
  label(null)
  const ms = await annotated(undefined)
  await waitFor('the end of all', async () => (await enrolledPods()) === 0, patient)
  report(`withdrawn in ${Math.round(ms)} ms`)
  const gone = () =>
    new Set(ztunnel.zdsEvents().flatMap(({ what, uid }) => (what === 'del' ? [uid] : []))).size
  await waitFor('their end at ztunnel', () => gone() === podCount + 1)
  expect(closedConnections()).toEqual([])
})
