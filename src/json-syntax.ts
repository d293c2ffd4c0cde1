// SPDX-License-Identifier: Apache-2.0

/**
 * Where the text stops being the beginning of a JSON document. V8 does not always tell, so this looks for the longest
 * beginning whose only fault is that it ends.
 */
export function syntaxErrorAt(text: string): number {
  let good = 0
  let bad = text.length + 1
  while (bad - good > 1) {
    const middle = (good + bad) >> 1
    if (isBeginning(text.slice(0, middle))) good = middle
    else bad = middle
  }
  return good
}

function isBeginning(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch (err) {
    const { message } = err as SyntaxError
    if (/^Unexpected end|^Unterminated string/.test(message)) return true
    const position = /at position (\d+)/.exec(message)?.[1]
    return position !== undefined && Number(position) >= text.length
  }
}
