// SPDX-License-Identifier: Apache-2.0
/** IP addresses as text and as the 16 bytes of the maps: network order, IPv4 as ::ffff:a.b.c.d. */

const octet = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
// Not node:net: loading it would slow every start of the plugin.
const ipv4 = new RegExp(`^${octet}(\\.${octet}){3}$`)

export function isIpv4(text: string): boolean {
  return ipv4.test(text)
}

export function isIpv6(text: string): boolean {
  return parseIpv6(text) !== undefined
}

/** 16 bytes; throws for what is not an address. The empty string is the address "none", all zeros. */
export function addressBytes(text: string): Uint8Array {
  if (text === '') return new Uint8Array(16)
  if (isIpv4(text)) return Uint8Array.of(...Array(10).fill(0), 255, 255, ...text.split('.').map(Number))
  const bytes = parseIpv6(text)
  if (bytes === undefined) throw new Error(`not an IP address: ${JSON.stringify(text)}`)
  return bytes
}

/** The canonical text (RFC 5952) of 16 bytes: IPv4-mapped as dotted IPv4, all zeros as the empty string. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.every((byte) => byte === 0)) return ''
  const isMapped = bytes.subarray(0, 12).every((byte, i) => byte === (i < 10 ? 0 : 255))
  if (isMapped) return bytes.subarray(12).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0))
  const text = groups.map((group) => group.toString(16)).join(':')
  const zeros = (text.match(/\b0(:0)+\b/g) ?? []).reduce(
    (best, run) => (run.length > best.length ? run : best),
    '',
  )
  return zeros === '' ? text : text.replace(new RegExp(`(^|:)${zeros}(:|$)`), '::')
}

/** One spelling for each address, so that two can be compared: `::FFFF:1.2.3.4` becomes `1.2.3.4`. */
export function canonicalAddress(text: string): string {
  return addressText(addressBytes(text))
}

function parseIpv6(text: string): Uint8Array | undefined {
  const [head = '', tail, ...more] = text.split('::')
  if (more.length > 0) return undefined
  const left = parseGroups(head, tail === undefined)
  const right = tail === undefined ? [] : parseGroups(tail, true)
  if (left === undefined || right === undefined) return undefined
  const missing = 8 - left.length - right.length
  if (tail === undefined ? missing !== 0 : missing < 1) return undefined
  const groups = [...left, ...Array<number>(missing).fill(0), ...right]
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255]))
}

/** 16-bit groups; at the end of an address, the last 32 bits may be written as IPv4. */
function parseGroups(text: string, isEnd: boolean): number[] | undefined {
  if (text === '') return []
  const groups: number[] = []
  const parts = text.split(':')
  for (const [i, part] of parts.entries()) {
    if (isEnd && i === parts.length - 1 && isIpv4(part)) {
      const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number)
      groups.push((a << 8) | b, (c << 8) | d)
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(Number.parseInt(part, 16))
    else return undefined
  }
  return groups
}
