// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../log.ts'
import { add } from './add.ts'
import { check } from './check.ts'
import { del } from './del.ts'
import { gc } from './gc.ts'
import type { Handlers } from './run.ts'
import { status } from './status.ts'

export interface HandlerDeps {
  readonly log: Logger
}

export function createHandlers({ log }: HandlerDeps): Handlers {
  return {
    add: (request) => add(request, log),
    check: (request) => check(request),
    del: async (request) => del(request, log),
    gc: async (request) => gc(request),
    status: async (request) => status(request),
  }
}
