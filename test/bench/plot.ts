// SPDX-License-Identifier: Apache-2.0
/** `node test/bench/plot.ts < rows.json > docs/bench.svg` */
import { readFileSync } from 'node:fs'
import type { Row } from './stats.ts'
import { plot } from './svg.ts'

const stdin = 0
process.stdout.write(plot(JSON.parse(readFileSync(stdin, 'utf8')) as Row[]))
