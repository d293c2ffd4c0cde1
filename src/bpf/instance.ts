// SPDX-License-Identifier: Apache-2.0
/** Programs of which each pod gets an instance of its own, because they cannot ask the kernel whose packet they see. */
import { nativeBytes } from '../native.ts'
import type { LoadedObject } from './loaded-object.ts'
import { openObject } from './object.ts'

export type InstanceName = 'inbound' | 'guard'

/**
 * `constants`: the whole of .rodata, 8 bytes each: first the netns cookie. `mapsDir`: bpffs directory of the map pins. The
 * caller disposes it: what is attached stays.
 */
export function loadInstance(
  name: InstanceName,
  constants: readonly bigint[],
  mapsDir: string,
  captureLog = false,
): LoadedObject {
  using object = openObject(nativeBytes(`${name}.bpf.o`), { name, pinRoot: mapsDir, captureLog })
  object.setRodata(Buffer.from(BigUint64Array.from(constants).buffer))
  return object.load()
}
