// SPDX-License-Identifier: Apache-2.0
/* One client: connections one after the other, round trips on one connection, or one stream. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define MAX_SAMPLES (1 << 20)
#define MAX_SIZE 65536
#define CHUNK 131072
/* Round trips that do not count: caches, and the window of the connection, are cold. */
#define WARM_UPS 20

static uint64_t deadline_of(const struct wanted *wanted)
{
	return now_ns() + wanted->ms * 1000000ULL;
}

/* Each with one byte there and back. */
void rate(const struct wanted *wanted)
{
	uint64_t begin = now_ns(), deadline = deadline_of(wanted);
	int64_t count = 0;
	char byte = 'x';

	do {
		int fd = dial(&wanted->to);

		round_trip(fd, &byte, 1);
		close_hard(fd);
		count++;
	} while (now_ns() < deadline);
	report(count, now_ns() - begin);
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

static void report_latencies(uint32_t *ns, int count)
{
	struct json json;

	qsort(ns, count, sizeof(*ns), compare);
	json_open(&json);
	json_int(&json, "count", count);
	json_int(&json, "p50_ns", ns[count / 2]);
	json_int(&json, "p99_ns", ns[count * 99LL / 100]);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

void rtt(const struct wanted *wanted)
{
	static uint32_t ns[MAX_SAMPLES];
	static char buffer[MAX_SIZE];
	uint64_t deadline = deadline_of(wanted), before, after;
	int fd = dial(&wanted->to), count = 0;

	if (wanted->size < 1 || wanted->size > MAX_SIZE)
		misuse("--size");
	for (int i = 0; i < WARM_UPS; i++)
		round_trip(fd, buffer, wanted->size);
	do {
		before = now_ns();
		round_trip(fd, buffer, wanted->size);
		after = now_ns();
		ns[count++] = after - before;
	} while (after < deadline && count < MAX_SAMPLES);
	close_hard(fd);
	report_latencies(ns, count);
}

/* Until the other side has all of it. */
void bulk(const struct wanted *wanted)
{
	static char chunk[CHUNK];
	uint64_t begin, deadline = deadline_of(wanted);
	int fd = dial(&wanted->to);
	int64_t bytes = 0;

	memset(chunk, SUNK, sizeof(chunk));
	begin = now_ns();
	do {
		if (!send_all(fd, chunk, sizeof(chunk)))
			die("send");
		bytes += sizeof(chunk);
	} while (now_ns() < deadline);
	shutdown(fd, SHUT_WR);
	/* It has read to the end: a reset says so, too. */
	if (recv(fd, chunk, 1, 0) > 0)
		misuse("the server does not swallow");
	report(bytes, now_ns() - begin);
	close(fd);
}
