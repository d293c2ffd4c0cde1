// SPDX-License-Identifier: Apache-2.0
/** What the generated codecs are made of. Integers are little-endian: the supported machines are. */
import { addressBytes, addressText } from '../address.ts'

export function make(size: number, fill: (buf: Buffer) => void): Buffer {
  const buf = Buffer.alloc(size)
  fill(buf)
  return buf
}

export function writeAddress(buf: Buffer, address: string, at: number): void {
  buf.set(addressBytes(address), at)
}

export function readAddress(buf: Buffer, at: number): string {
  // Most places of a list are empty, and to withdraw a pod is to read the lists of all.
  const isNone = [0, 4, 8, 12].every((word) => buf.readUInt32LE(at + word) === 0)
  return isNone ? '' : addressText(buf.subarray(at, at + 16))
}

/** Zero padded UTF-8. Throws for a text that does not fit. */
export function writeText(buf: Buffer, text: string, at: number, size: number): void {
  const length = Buffer.byteLength(text)
  if (length > size) throw new RangeError(`${JSON.stringify(text)} has ${length} bytes, at most ${size} fit`)
  buf.write(text, at)
}

export function readText(buf: Buffer, at: number, size: number): string {
  const bytes = buf.subarray(at, at + size)
  const end = bytes.indexOf(0)
  return bytes.toString('utf8', 0, end < 0 ? size : end)
}

/** A shorter list leaves the rest zero. Throws for a longer one. */
export function writeList<T>(items: readonly T[], length: number, write: (item: T, i: number) => void): void {
  if (items.length > length) throw new RangeError(`${items.length} items, at most ${length} fit`)
  items.forEach(write)
}
