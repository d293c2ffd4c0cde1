// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// BTF as JSON on stdin (bpftool -j btf dump) → TypeScript on stdout: an interface and a codec for every struct
// that is a map's key or value, a const object for every enum, a description of every map.
import { readFileSync } from 'node:fs'

interface BtfType {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly size?: number
  readonly type_id?: number
  readonly nr_elems?: number
  readonly encoding?: string
  readonly members?: readonly {
    readonly name: string
    readonly type_id: number
    readonly bits_offset: number
  }[]
  readonly values?: readonly { readonly name: string; readonly val: number }[]
}

/** How one C type looks in TypeScript. `at` is an expression for its offset, `from` one for its value. */
interface Shape {
  readonly type: string
  readonly size: number
  encode(from: string, at: string): string
  decode(at: string): string
}

const perCpuHash = 5 // BPF_MAP_TYPE_PERCPU_HASH, linux/bpf.h
const mapsWithoutCodec = new Set([18, 24]) // SOCKHASH and SK_STORAGE: only the kernel side reads and writes them

const { types } = JSON.parse(readFileSync(0, 'utf8')) as { types: BtfType[] }
const byId = new Map(types.map((type) => [type.id, type]))
const structs = new Map<string, BtfType>()

function typeOf(id: number | undefined): BtfType {
  const type = byId.get(id ?? -1)
  if (type === undefined) throw new Error(`BTF has no type ${id}`)
  return type
}

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase())
const pascal = (name: string): string => camel(`_${name}`)

function scalar(type: string, size: number, accessor: string): Shape {
  return {
    type,
    size,
    encode: (from, at) => `buf.write${accessor}(${from}, ${at})`,
    decode: (at) => `buf.read${accessor}(${at})`,
  }
}

const integers: Readonly<Record<string, Shape>> = {
  __u8: scalar('number', 1, 'UInt8'),
  __u16: scalar('number', 2, 'UInt16LE'),
  __u32: scalar('number', 4, 'UInt32LE'),
  __u64: scalar('bigint', 8, 'BigUInt64LE'),
  __s64: scalar('bigint', 8, 'BigInt64LE'),
  __be16: scalar('number', 2, 'UInt16BE'),
  __be32: scalar('number', 4, 'UInt32BE'),
}

/** 16 bytes in network order, IPv4 as ::ffff:a.b.c.d: a string, empty for all zeros. */
const address: Shape = {
  type: 'string',
  size: 16,
  encode: (from, at) => `writeAddress(buf, ${from}, ${at})`,
  decode: (at) => `readAddress(buf, ${at})`,
}

function text(size: number): Shape {
  return {
    type: 'string',
    size,
    encode: (from, at) => `writeText(buf, ${from}, ${at}, ${size})`,
    decode: (at) => `readText(buf, ${at}, ${size})`,
  }
}

function list(item: Shape, length: number): Shape {
  const step = (at: string): string => `${at} + i * ${item.size}`
  return {
    type: `readonly ${item.type}[]`,
    size: item.size * length,
    encode: (from, at) => `writeList(${from}, ${length}, (item, i) => { ${item.encode('item', step(at))} })`,
    decode: (at) => `Array.from({ length: ${length} }, (_, i) => ${item.decode(step(at))})`,
  }
}

function arrayShape({ type_id, nr_elems = 0 }: BtfType): Shape {
  const item = typeOf(type_id)
  if (item.name === 'char') return text(nr_elems)
  if (item.name === '__be32' && nr_elems === 4) return address
  return list(shapeOf(item), nr_elems)
}

function structShape(type: BtfType): Shape {
  structs.set(type.name, type)
  const name = pascal(type.name)
  return {
    type: name,
    size: type.size ?? 0,
    encode: (from, at) => `write${name}(buf, ${from}, ${at})`,
    decode: (at) => `read${name}(buf, ${at})`,
  }
}

function shapeOf(type: BtfType): Shape {
  const integer = integers[type.name]
  if (integer !== undefined) return integer
  if (type.kind === 'TYPEDEF' || type.kind === 'CONST') return shapeOf(typeOf(type.type_id))
  if (type.kind === 'ARRAY') return arrayShape(type)
  if (type.kind === 'STRUCT') return structShape(type)
  throw new Error(`no TypeScript for ${type.kind} ${type.name}: use the types of linux/types.h`)
}

function structCode(type: BtfType): string {
  const name = pascal(type.name)
  const fields = (type.members ?? [])
    .filter((member) => !member.name.startsWith('pad'))
    .map((member) => ({
      name: camel(member.name),
      at: `at + ${member.bits_offset / 8}`,
      shape: shapeOf(typeOf(member.type_id)),
    }))
  const lines = (each: (field: (typeof fields)[number]) => string): string => fields.map(each).join('\n')
  return `
export interface ${name} {
${lines((f) => `  readonly ${f.name}: ${f.shape.type}`)}
}

function write${name}(buf: Buffer, v: ${name}, at: number): void {
${lines((f) => `  ${f.shape.encode(`v.${f.name}`, f.at)}`)}
}

function read${name}(buf: Buffer, at: number): ${name} {
  return {
${lines((f) => `    ${f.name}: ${f.shape.decode(f.at)},`)}
  }
}
`
}

function enumCode({ name, values = [] }: BtfType): string {
  const prefix = `${name.toUpperCase()}_`
  const members = values.map(({ name: member, val }) => {
    if (!member.startsWith(prefix)) throw new Error(`enum ${name}: ${member} does not begin with ${prefix}`)
    return `  ${camel(member.slice(prefix.length).toLowerCase())}: ${val},`
  })
  return `\nexport const ${pascal(name)} = {\n${members.join('\n')}\n} as const\n`
}

interface MapDef {
  readonly name: string
  readonly type: number
  readonly key: Shape
  readonly value: Shape
}

function pointee(map: BtfType, member: string): BtfType | undefined {
  const id = map.members?.find(({ name }) => name === member)?.type_id
  return id === undefined ? undefined : typeOf(typeOf(id).type_id)
}

const mapType = (variable: BtfType): number => pointee(typeOf(variable.type_id), 'type')?.nr_elems ?? 0

function mapDef(variable: BtfType): MapDef {
  const map = typeOf(variable.type_id)
  const [key, value] = [pointee(map, 'key'), pointee(map, 'value')]
  if (key === undefined || value === undefined)
    throw new Error(`map ${variable.name} has no key or value type`)
  return { name: variable.name, type: mapType(variable), key: shapeOf(key), value: shapeOf(value) }
}

function mapCode({ name, type, key, value }: MapDef): string {
  return `
export const ${camel(name)}Map = {
  name: '${name}',
  keySize: ${key.size},
  valueSize: ${value.size},
  perCpu: ${type === perCpuHash},
  encodeKey: (v: ${key.type}): Buffer => make(${key.size}, (buf) => { ${key.encode('v', '0')} }),
  decodeKey: (buf: Buffer): ${key.type} => ${key.decode('0')},
  encode: (v: ${value.type}): Buffer => make(${value.size}, (buf) => { ${value.encode('v', '0')} }),
  decode: (buf: Buffer): ${value.type} => ${value.decode('0')},
}
`
}

const variables = types.filter(({ kind, name }) => kind === 'VAR' && !name.startsWith('export_'))
const maps = variables.filter((variable) => !mapsWithoutCodec.has(mapType(variable))).map(mapDef)
const mapNames = variables.map(({ name }) => `  '${name}',`)
// shapeOf() of a struct may find more structs: the Map grows while it is walked.
const structCodes: string[] = []
for (const struct of structs.values()) structCodes.push(structCode(struct))

process.stdout.write(`// SPDX-License-Identifier: Apache-2.0
// Code generated by bpf/gen-layout.ts from BTF; DO NOT EDIT.
import { make, readAddress, readText, writeAddress, writeList, writeText } from './codec.ts'

export const mapNames = [
${mapNames.join('\n')}
] as const
${types
  .filter(({ kind }) => kind === 'ENUM')
  .map(enumCode)
  .join('')}${structCodes.join('')}${maps.map(mapCode).join('')}`)
