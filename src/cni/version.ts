// SPDX-License-Identifier: Apache-2.0
import { CniCode, CniError } from './errors.ts'

/** Oldest first. */
export const supportedVersions: readonly string[] = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
export const latestVersion = '1.1.0'

/** The first version of the specification that knows the command. */
const introducedIn: Readonly<Record<string, string>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' }

export function isSupported(version: unknown): version is string {
  return typeof version === 'string' && supportedVersions.includes(version)
}

/** The answer to VERSION. */
export function versionJson(): string {
  return JSON.stringify({ cniVersion: latestVersion, supportedVersions })
}

/** Throws unless we speak `version` and `command` exists in it. */
export function requireVersion(command: string, version: string | undefined): void {
  if (!isSupported(version)) {
    const what = version === undefined ? 'without cniVersion (0.1.0 or 0.2.0)' : JSON.stringify(version)
    throw new CniError(CniCode.incompatibleVersion, `incompatible CNI version: ${what}`, {
      details: `set cniVersion to one of ${supportedVersions.join(', ')} in the network configuration`,
    })
  }
  const first = introducedIn[command]
  if (first !== undefined && supportedVersions.indexOf(version) < supportedVersions.indexOf(first)) {
    throw new CniError(CniCode.incompatibleVersion, `CNI version ${version} has no ${command}`, {
      details: `${command} exists from ${first} on: raise cniVersion in the network configuration`,
    })
  }
}
