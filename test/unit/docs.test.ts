// SPDX-License-Identifier: Apache-2.0
/** The documentation says what the code says. */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const documents = globSync(['*.md', 'docs/**/*.md'], { cwd: root }).toSorted()

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

/** The cells of the table with these headings, without head and rule. */
function table(file: string, ...headings: string[]): string[][] {
  const lines = read(file).split('\n')
  const start = lines.findIndex((line) => line.startsWith('|') && cells(line).join() === headings.join())
  expect(start, `${file} has a table of ${headings}`).toBeGreaterThan(-1)
  const rows = lines.slice(start + 2)
  const end = rows.findIndex((line) => !line.startsWith('|'))
  return rows.slice(0, end).map(cells)
}

function cells(line: string): string[] {
  return line
    .slice(1, -1)
    .replaceAll('\\|', '\0')
    .split('|')
    .map((cell) => cell.trim().replaceAll('\0', '|'))
}

/** Without the marks of code. */
const bare = (cell = '') => cell.replaceAll('`', '')

interface Schema {
  readonly type?: string | readonly string[]
  readonly enum?: readonly string[]
  readonly default?: unknown
  readonly pattern?: string
  readonly description?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly additionalProperties?: Schema
}

describe('the configuration table of README.md', () => {
  /** The runtime's own, not the user's. */
  const notOurs = /^(cniVersion|name|type|runtimeConfig|prevResult|cni\.dev\/.*)$/
  const schema: Schema = JSON.parse(read('conf/schema/netconf.json'))
  const fields = fieldsOf(schema).filter(({ name }) => !notOurs.test(name))
  const rows = table('README.md', 'name', 'allowed', 'default', 'meaning')

  function fieldsOf({ properties = {} }: Schema, prefix = ''): { name: string; field: Schema }[] {
    return Object.entries(properties).flatMap(([key, field]) => {
      const name = `${prefix}${key}`
      if (field.properties !== undefined && !notOurs.test(name)) return fieldsOf(field, `${name}.`)
      return [{ name, field }]
    })
  }

  function allowed({ enum: values, type, pattern, items, additionalProperties }: Schema): string {
    if (values !== undefined) return values.join(', ')
    if (pattern === '^/') return 'absolute path'
    const [name] = [type].flat()
    if (items !== undefined) return `list of ${[items.type].flat()[0]}s`
    return additionalProperties === undefined ? `${name}` : `object of ${additionalProperties.type}s`
  }

  function shown(value: unknown): string {
    if (value === undefined) return '-'
    return typeof value === 'string' ? value : JSON.stringify(value)
  }

  test('has the fields of the schema, with what is allowed and the default', () => {
    const wanted = fields.map(({ name, field }) => [name, allowed(field), shown(field.default)])
    expect(rows.map((row) => row.slice(0, 3).map(bare))).toEqual(wanted)
  })

  test.for(fields.filter(({ field }) => field.description))("says the schema's words of $name", (wanted) => {
    const row = rows.find(([name]) => bare(name) === wanted.name)
    expect(bare(row?.[3])).toBe(bare(wanted.field.description))
  })

  test.for(rows)('says something of %s', (row) => {
    expect(row[3]).toMatch(/\w/)
  })
})

interface Option {
  readonly command: string
  readonly flags: string
}

/** All of installer/commands, as the executable has them. */
async function commands(): Promise<Command[]> {
  const files = globSync('installer/commands/*.ts', { cwd: root }).toSorted()
  const loaded = await Promise.all(
    files.map(async (file) => {
      const name = file.replace(/^.*\/|\.ts$/g, '')
      const module = (await import(join(root, file))) as Record<string, (() => Command) | undefined>
      return module[`${name}Command`]?.() ?? []
    }),
  )
  return loaded.flat()
}

describe('the command line in the documentation', async () => {
  const known = await commands()

  test('README.md has each command and each of its options', () => {
    const wanted = known.flatMap((command): Option[] => [
      { command: command.name(), flags: '' },
      ...command.options
        .filter(({ long }) => long !== '--output')
        .map(({ flags }) => ({ command: command.name(), flags })),
    ])
    let command = ''
    const rows = table('README.md', 'command', 'option', 'meaning').map(([name, flags]): Option => {
      command = bare(name) || command
      return { command, flags: bare(flags) }
    })
    const sorted = (options: Option[]) => options.map((o) => `${o.command} ${o.flags}`).toSorted()
    expect(sorted(rows)).toEqual(sorted(wanted))
  })

  test('each command takes -o, but the agent, whose output is its log', () => {
    const without = known.filter(({ options }) => !options.some(({ long }) => long === '--output'))
    expect(without.map((command) => command.name())).toEqual(['agent'])
  })

  test.for(documents)('%s calls no command and no option that is not there', (file) => {
    for (const code of codeOf(read(file))) {
      const [call, name, rest = ''] = /\bambridge ([a-z]+)\b(.*)/.exec(code) ?? []
      if (call === undefined) continue
      const command = known.find((each) => each.name() === name)
      expect(command, `ambridge ${name}`).toBeDefined()
      const options = command?.options.map(({ long }) => long)
      for (const [flag] of rest.matchAll(/--[a-z-]+/g)) expect(options, call).toContain(flag)
    }
  })

  test.for(documents)('%s writes no option in code that no command has', (file) => {
    const all = new Set(known.flatMap(({ options }) => options.map(({ long }) => long)))
    const ours = [...read(file).matchAll(/`(--[a-z-]+)[^`]*`/g)].map(([, flag]) => flag)
    expect(ours.filter((flag) => !all.has(flag))).toEqual([])
  })
})

/** Code spans, and the lines of code blocks. */
function codeOf(text: string): string[] {
  const parts = text.split(/^```.*$/m)
  const prose = parts.filter((_, i) => i % 2 === 0)
  const blocks = parts.filter((_, i) => i % 2 === 1)
  const spans = prose.flatMap((part) => [...part.matchAll(/`([^`]+)`/g)].map(([, span = '']) => span))
  return [...spans, ...blocks.flatMap((block) => block.split('\n'))]
}

describe('docs/ARCHITECTURE.md', () => {
  const file = 'docs/ARCHITECTURE.md'

  test('has the maps of bpf/maps.h, with their types', () => {
    const definitions = read('bpf/maps.h').matchAll(
      /BPF_MAP_TYPE_(\w+)\);[^}]*\} (\w+) __weak SEC\("\.maps"\)/g,
    )
    const wanted = [...definitions].map(([, type, name]) => `${name} ${type}`).toSorted()
    const rows = table(file, 'map', 'type', 'key -> value').map(([name, type]) => `${bare(name)} ${type}`)
    expect(rows.toSorted()).toEqual(wanted)
  })

  test('has every program', () => {
    const sources = globSync('bpf/*.bpf.c', { cwd: root }).map(read).join('\n')
    const wanted = [...sources.matchAll(/^SEC\("[^"]+"\)\nint (ambridge_\w+)\(/gm)].map(([, name]) => name)
    const rows = table(file, 'program', 'hook', 'attached to', 'does').flatMap(([names]) =>
      bare(names).split(', '),
    )
    expect(rows.toSorted()).toEqual(wanted.toSorted())
  })
})

describe('references', () => {
  test.for(documents)('%s links to files that are there', (file) => {
    const targets = [...read(file).matchAll(/\]\(([^)#]+)[^)]*\)/g)]
      .map(([, target = '']) => target.replaceAll(/\s+/g, ''))
      .filter((target) => !target.includes('://'))
    expect(targets.filter((target) => !existsSync(join(root, dirname(file), target)))).toEqual([])
  })

  test.for(documents)('%s names files that are there', (file) => {
    const named = [...read(file).matchAll(/`((?:src|bpf|conf|installer|test|docs)\/[\w./-]+)`/g)]
    expect(named.map(([, path = '']) => path).filter((path) => !existsSync(join(root, path)))).toEqual([])
  })

  test('each counter that a document names exists', () => {
    const layout = read('src/bpf/layout.gen.ts')
    const named = documents.flatMap((file) => [
      ...read(file).matchAll(/`((?:outbound|inbound|announce|raw)[A-Z]\w*)`/g),
    ])
    expect(named.length).toBeGreaterThan(0)
    expect(named.map(([, name]) => name).filter((name) => !layout.includes(`  ${name}: `))).toEqual([])
  })
})

describe('decisions', () => {
  const records = globSync('docs/adr/*.md', { cwd: root }).toSorted()

  test('are numbered from 1 without a gap', () => {
    const numbers = records.map((file) => Number(/\/(\d{4})-[a-z0-9-]+\.md$/.exec(file)?.[1]))
    expect(numbers).toEqual(records.map((_, i) => i + 1))
  })

  test.for(records)('%s says context, decision and consequences', (file) => {
    const headings = read(file).match(/^#+ .*$/gm) ?? []
    const number = /\/(\d{4})-/.exec(file)?.[1]
    expect(headings[0]).toMatch(new RegExp(`^# ${number}: \\S`))
    expect(headings.slice(1)).toEqual(['## Context', '## Decision', '## Consequences'])
  })
})
