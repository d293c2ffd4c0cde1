// SPDX-License-Identifier: Apache-2.0
/** Programs of which each pod gets an instance of its own, because they cannot ask the kernel whose packet they see. */
import { nativeBytes } from '../native.ts'
import type { LoadedObject } from './loaded-object.ts'
import { openObject } from './object.ts'

export type InstanceName = 'inbound' | 'guard'

/** `mapsDir`: bpffs directory of the map pins. The caller disposes it: what is attached stays. */
export function loadInstance(
  name: InstanceName,
  cookie: bigint,
  mapsDir: string,
  captureLog = false,
): LoadedObject {
  using object = openObject(nativeBytes(`${name}.bpf.o`), { name, pinRoot: mapsDir, captureLog })
  // The whole of .rodata: const volatile __u64 netns_cookie.
  const rodata = Buffer.alloc(8)
  rodata.writeBigUInt64LE(cookie)
  object.setRodata(rodata)
  return object.load()
}
