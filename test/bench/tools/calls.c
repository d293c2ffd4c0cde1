// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <unistd.h>

#include "bench.h"

#define REPLY_TIMEOUT_MS 3000

/* getpeername() on a connection. */
void peername(const struct wanted *wanted)
{
	int fd = dial(&wanted->to);
	uint64_t begin = now_ns();

	for (int i = 0; i < wanted->count; i++) {
		union addr peer;
		socklen_t len = sizeof(peer);

		if (getpeername(fd, &peer.sa, &len))
			die("getpeername");
	}
	report(wanted->count, now_ns() - begin);
	close_hard(fd);
}

/* A for a.test: identity, flags, counts, name, type, class. */
static const char question[] = "\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01" "a\x04test\0\0\x01\0\x01";

/* DNS on one unconnected UDP socket: question and answer. */
void query(const struct wanted *wanted)
{
	int fd = socket(wanted->to.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t begin = now_ns();
	char reply[512];

	if (fd < 0)
		die("socket");
	for (int i = 0; i < wanted->count; i++) {
		if (sendto(fd, question, sizeof(question) - 1, 0, &wanted->to.sa,
			   addr_len(&wanted->to)) < 0)
			die("sendto");
		if (!wait_for(fd, POLLIN, REPLY_TIMEOUT_MS) ||
		    recvfrom(fd, reply, sizeof(reply), 0, NULL, NULL) < 0)
			die("recvfrom");
	}
	report(wanted->count, now_ns() - begin);
	close(fd);
}
