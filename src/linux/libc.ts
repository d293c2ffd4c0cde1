// SPDX-License-Identifier: Apache-2.0
/** The libc calls we use, under their C names. No policy, no retries, no logging. Failures are -1 + errno. */
import { openLibrary } from '../native.ts'

const { declare, declareAsync } = openLibrary('libc.so.6')

/** sys/socket.h */
export const AF_INET = 2
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_NETNS_COOKIE = 71
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
  setsockopt: declare<(fd: number, level: number, optname: number, optval: Buffer, optlen: number) => number>(
    'int setsockopt(int fd, int level, int optname, const void *optval, uint32_t optlen)',
  ),
  bind: declare<(fd: number, addr: Buffer, addrlen: number) => number>(
    'int bind(int fd, const void *addr, uint32_t addrlen)',
  ),
  listen: declare<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)'),
  connect: declare<(fd: number, addr: Buffer, addrlen: number) => number>(
    'int connect(int fd, const void *addr, uint32_t addrlen)',
  ),
  /** The caller owns the descriptor. */
  accept4: declare<(fd: number, addr: null, addrlen: null, flags: number) => number>(
    'int accept4(int fd, void *addr, void *addrlen, int flags)',
  ),
  /** Of struct msghdr. Gives the number of bytes. */
  sendmsg: declare<(fd: number, msg: Buffer, flags: number) => number>(
    'long sendmsg(int fd, const void *msg, int flags)',
  ),
  /** Of struct msghdr, which is written to. Gives the number of bytes. */
  recvmsg: declare<(fd: number, msg: Buffer, flags: number) => number>(
    'long recvmsg(int fd, void *msg, int flags)',
  ),
  /** The caller owns the descriptor. */
  epoll_create1: declare<(flags: number) => number>('int epoll_create1(int flags)'),
  epoll_ctl: declare<(epfd: number, op: number, fd: number, event: Buffer | null) => number>(
    'int epoll_ctl(int epfd, int op, int fd, const void *event)',
  ),
  /** Writes at most `maxevents` struct epoll_event; the caller keeps `events` alive until then. */
  epoll_wait: declareAsync<(epfd: number, events: Buffer, maxevents: number, timeoutMs: number) => number>(
    'int epoll_wait(int epfd, void *events, int maxevents, int timeout)',
  ),
  /** The caller owns the descriptor. */
  eventfd: declare<(initval: number, flags: number) => number>(
    'int eventfd(unsigned int initval, int flags)',
  ),
  /** Writes at most `addrlen` (u32, in and out) bytes to `addr`. */
  getsockname: declare<(fd: number, addr: Buffer, addrlen: Uint32Array) => number>(
    'int getsockname(int fd, void *addr, uint32_t *addrlen)',
  ),
  /** For calls that glibc 2.28 has no function for. */
  syscall: declare<(number: number, a: number, b: number, c: number) => number>(
    'long syscall(long number, long a, long b, long c)',
  ),
  /** Blocks the whole process. The lock goes with the last descriptor of this open file. */
  flock: declare<(fd: number, operation: number) => number>('int flock(int fd, int operation)'),
  /** For requests without an argument. */
  ioctl: declare<(fd: number, request: number) => number>('int ioctl(int fd, unsigned long request)'),
}
