// SPDX-License-Identifier: Apache-2.0
/** The libc calls we use, under their C names. No policy, no retries, no logging. Failures are -1 + errno. */
import { openLibrary } from '../native.ts'

const { declare } = openLibrary('libc.so.6')

/** sys/socket.h */
export const AF_INET = 2
export const SOCK_CLOEXEC = 0o2000000
/** sys/file.h */
export const LOCK_EX = 2

export const libc = {
  /** Moves the calling thread alone. */
  setns: declare<(fd: number, nstype: number) => number>('int setns(int fd, int nstype)'),
  /** The caller owns the descriptor. */
  socket: declare<(domain: number, type: number, protocol: number) => number>(
    'int socket(int domain, int type, int protocol)',
  ),
  /** Writes at most `optlen` (u32, in and out) bytes to `optval`. */
  getsockopt: declare<
    (fd: number, level: number, optname: number, optval: Buffer, optlen: Uint32Array) => number
  >('int getsockopt(int fd, int level, int optname, void *optval, uint32_t *optlen)'),
  /** Blocks the whole process. The lock goes with the last descriptor of this open file. */
  flock: declare<(fd: number, operation: number) => number>('int flock(int fd, int operation)'),
  /** For requests without an argument. */
  ioctl: declare<(fd: number, request: number) => number>('int ioctl(int fd, unsigned long request)'),
}
