// SPDX-License-Identifier: Apache-2.0
/* Connects to where nobody listens: the connect hook runs, and little else. */
#include <errno.h>
#include <unistd.h>

#include "bench.h"

static int open_socket(const struct wanted *wanted)
{
	int fd = socket(wanted->to.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static void expect_refusal(int fd, const struct wanted *wanted)
{
	if (!connect(fd, &wanted->to.sa, addr_len(&wanted->to)))
		misuse("somebody listens there");
	if (errno != ECONNREFUSED)
		die("connect");
}

void refuse(const struct wanted *wanted)
{
	int fd = open_socket(wanted);
	uint64_t begin = now_ns();

	for (int i = 0; i < wanted->count; i++) {
		expect_refusal(fd, wanted);
		if (wanted->reuse)
			continue;
		close(fd);
		fd = open_socket(wanted);
	}
	report(wanted->count, now_ns() - begin);
}
