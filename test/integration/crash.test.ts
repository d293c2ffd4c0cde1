// SPDX-License-Identifier: Apache-2.0
/**
 * Agent and plugins are killed at random moments while pods come and go and labels change: no connection of an enrolled pod passes
 * ztunnel by, and in the end everything is exactly as it should be. CRASH_SEED repeats what was drawn, CRASH_KILLS says how many.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFailed, test } from 'vitest'
import { CrashField, type CrashPod } from '../support/crash-field.ts'
import { waitFor } from '../support/exec.ts'
import { actualState, type WantedPod, wantedState } from '../support/node-state.ts'
import { Random } from '../support/random.ts'

const kills = Number(process.env['CRASH_KILLS'] ?? (process.env['CI'] === 'true' ? 500 : 60))
const seed = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000)

test(`${kills} kills of agent and plugin: enrolled pods stay captured, and nothing is left behind`, {
  timeout: 120_000 + kills * 4_000,
}, async () => {
  onTestFailed(() => void process.stdout.write(`CRASH_SEED=${seed} CRASH_KILLS=${kills}\n`))
  await using field = await CrashField.create(kills)
  field.mesh.api.namespaces.create({ name: 'flips' })
  const pods = await runningPods(field)
  const wanted = await crash(field, pods)
  await field.restartAgent()
  await endClients(field)
  await expectState(field, wanted)
  const {
    agentKills,
    pluginKills,
    pods: made,
    forgotten,
    attempts,
    judged,
    uncaptured,
    leaks,
  } = field.figures
  process.stdout.write(
    `crash: ${agentKills} kills of the agent, ${pluginKills} of the plugin, ${made} pods, ` +
      `${forgotten} sandboxes without DEL, ${attempts} attempts of the background clients, ` +
      `${judged} of them judged, uncaptured ${uncaptured}, leaks ${leaks}\n`,
  )
  expect(field.violations).toEqual([])
  expect(judged).toBeGreaterThan(0)
})

interface Pods {
  readonly lasting: readonly CrashPod[]
  readonly labelled: readonly CrashPod[]
  readonly flipping: readonly CrashPod[]
}

async function runningPods(field: CrashField): Promise<Pods> {
  const random = new Random(seed, 'start')
  const start = async (namespace: string, family: CrashPod['family']) => {
    const pod = field.newPod(namespace, family)
    await field.run(pod, random)
    return pod
  }
  return {
    lasting: [await start('mesh', 'ipv4'), await start('mesh', 'ipv6')],
    labelled: [await start('shop', 'ipv4')],
    flipping: [await start('flips', 'ipv4'), await start('flips', 'ipv6')],
  }
}

/** Until enough was killed. Gives what should be there then. */
async function crash(field: CrashField, { lasting, labelled, flipping }: Pods): Promise<WantedPod[]> {
  const [pod] = labelled
  if (pod === undefined) throw new Error('no pod')
  const [, label, flip, ...stay] = await Promise.all([
    field.killAgents(new Random(seed, 'agent')),
    changeLabels(field, labelled, 'label', (on) => field.label('pods', pod, on)),
    changeLabels(field, flipping, 'flip', (on) => field.label('namespaces', { name: 'flips' }, on)),
    ...['first', 'second', 'third'].map((name) => comeAndGo(field, name)),
  ])
  return [
    ...[...lasting, ...stay].map((each) => asWanted(each, true)),
    ...labelled.map((each) => asWanted(each, label)),
    ...flipping.map((each) => asWanted(each, flip)),
  ]
}

function asWanted({ sandbox, ...pod }: CrashPod, isEnrolled: boolean): WantedPod {
  if (sandbox === undefined) throw new Error(`${pod.name} has not started`)
  return { ...pod, sandbox, isEnrolled }
}

/** The last pod stays. */
async function comeAndGo(field: CrashField, name: string): Promise<CrashPod> {
  const random = new Random(seed, name)
  for (;;) {
    const pod = field.newPod('mesh', random.chance(0.5) ? 'ipv4' : 'ipv6')
    await field.run(pod, random)
    if (field.isOver) return pod
    await sleep(random.between(0, 500))
    await field.end(pod, random)
  }
}

/** Whether the label is there in the end. */
async function changeLabels(
  field: CrashField,
  pods: readonly CrashPod[],
  name: string,
  set: (on: boolean) => void,
): Promise<boolean> {
  const random = new Random(seed, name)
  while (!field.isOver) {
    set(true)
    await field.annotated(pods, 'enabled')
    for (const pod of pods) field.mustBeCaptured(pod)
    await sleep(random.between(0, 600))
    if (field.isOver) return true
    for (const pod of pods) field.mayBeUncaptured(pod)
    set(false)
    for (let changes = random.between(0, 2); changes > 0; changes--) {
      await sleep(random.between(0, 150))
      set(true)
      await sleep(random.between(0, 150))
      set(false)
    }
    // An annotation of before must not be taken for one of after.
    await field.freshAgent()
    await field.annotated(pods, undefined)
  }
  return false
}

async function endClients(field: CrashField): Promise<void> {
  for (const pod of field.pods) if (pod.sandbox) field.judge(pod, await pod.sandbox.endClient())
}

async function expectState(field: CrashField, pods: readonly WantedPod[]): Promise<void> {
  const wanted = wantedState(pods)
  const state = () => actualState(field.mesh, field.ztunnel, pods, field.containerIds)
  const isThere = async () => JSON.stringify(inOrder(await state())) === JSON.stringify(inOrder(wanted))
  // ztunnel may have to connect yet.
  await waitFor('the state', isThere, { everyMs: 500 }).catch(() => undefined)
  expect(await state()).toEqual(wanted)
}

function inOrder(state: object): unknown {
  return Object.entries(state).sort(([a], [b]) => (a < b ? -1 : 1))
}
