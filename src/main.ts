// SPDX-License-Identifier: Apache-2.0
/** Entry of the one executable: the CNI plugin when a container runtime calls it, the command line otherwise. */
import { runBundle } from './bundle.ts'

runBundle(process.env['CNI_COMMAND'] === undefined ? 'cli' : 'plugin')
