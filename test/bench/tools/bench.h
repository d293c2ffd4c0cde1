// SPDX-License-Identifier: Apache-2.0
/* The load generator of the benchmark. A command reports one JSON line; what it does not expect ends it with exit code 1. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

#include "json.h"
#include "net.h"
#include "options.h"

/* What the command line asks for. Each command reads what it needs. */
struct wanted {
	union addr to;
	int count;
	int ms;
	/* Bytes there and back in one round trip */
	int size;
	/* One socket for all connects */
	bool reuse;
};

/* CLOCK_MONOTONIC */
uint64_t now_ns(void);
/* Says what and errno. */
void __attribute__((noreturn)) die(const char *what);
/* Blocking, without Nagle's delay. */
int dial(const union addr *to);
/* Close with a reset: neither side keeps the port in TIME_WAIT. */
void close_hard(int fd);
/* One byte, or size bytes, there and back. */
void round_trip(int fd, char *buffer, size_t size);
/* {"count":...,"ns":...}: how many of a thing took how long in all. */
void report(int64_t count, uint64_t ns);

/* refuse.c: count connects that somebody refuses. */
void refuse(const struct wanted *wanted);

/* load.c: for ms. */
void rate(const struct wanted *wanted);
void rtt(const struct wanted *wanted);
void bulk(const struct wanted *wanted);

/* calls.c: count system calls on one socket. */
void peername(const struct wanted *wanted);
void query(const struct wanted *wanted);

/* What the server swallows instead of sending it back. */
#define SUNK 's'

/* echo.c: all connections in one thread. */
void __attribute__((noreturn)) serve(uint16_t port);

/* measure.c: run argv, with this process's stdin and environment, and report what it took. */
void measure(char **argv);

#endif
