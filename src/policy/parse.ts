// SPDX-License-Identifier: Apache-2.0
import { isIpv4, isIpv6 } from '../address.ts'
import type { Cidr } from './pod.ts'

/** Go's strconv.ParseBool, which Istio reads annotations with. */
export function parseBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false
  return undefined
}

/** Comma list without its empty items. */
export function parseNames(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

export function parsePort(text: string): number | undefined {
  const trimmed = text.trim()
  return /^\d{1,10}$/.test(trimmed) && Number(trimmed) <= 65535 ? Number(trimmed) : undefined
}

export function parseCidr(text: string): Cidr | undefined {
  const match = /^([0-9a-fA-F.:]+)\/(0|[1-9]\d{0,2})$/.exec(text.trim())
  const [, address = '', length = ''] = match ?? []
  const prefix = Number(length)
  if (isIpv4(address)) return prefix <= 32 ? { address, prefix, family: 4 } : undefined
  return isIpv6(address) && prefix <= 128 ? { address, prefix, family: 6 } : undefined
}

/** 127.0.0.0/8 and ::1: what Istio takes for a loopback range. */
export function isLoopbackRange({ address, family }: Cidr): boolean {
  return family === 4 ? address.startsWith('127.') : /^[0:]*:0*1$/.test(address)
}
