// SPDX-License-Identifier: Apache-2.0
/* Copying with half-close. Neither direction waits for the other. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "standin.h"

struct flow {
	int from;
	int to;
	size_t start;
	size_t end;
	bool is_done;
	char buffer[16384];
};

static bool is_pending(const struct flow *flow)
{
	return flow->start < flow->end;
}

/* What poll() is to wait for; fd -1 for nothing, since POLLHUP comes unasked. */
static struct pollfd interest(const struct flow *flow)
{
	if (flow->is_done)
		return (struct pollfd){ .fd = -1 };
	if (is_pending(flow))
		return (struct pollfd){ .fd = flow->to, .events = POLLOUT };
	return (struct pollfd){ .fd = flow->from, .events = POLLIN };
}

static bool fill(struct flow *flow)
{
	ssize_t len = recv(flow->from, flow->buffer, sizeof(flow->buffer), 0);

	if (len < 0)
		return errno == EAGAIN;
	flow->start = 0;
	flow->end = len;
	if (!len) {
		flow->is_done = true;
		shutdown(flow->to, SHUT_WR);
	}
	return true;
}

static bool flush(struct flow *flow)
{
	ssize_t len =
		send(flow->to, flow->buffer + flow->start, flow->end - flow->start, MSG_NOSIGNAL);

	if (len < 0)
		return errno == EAGAIN;
	flow->start += len;
	return true;
}

/* false: the connection is broken. */
static bool move(struct flow *flow, short events)
{
	if (!events)
		return true;
	if (is_pending(flow))
		return flush(flow);
	return fill(flow) && (!is_pending(flow) || flush(flow));
}

static void run(struct flow *there, struct flow *back)
{
	while (!there->is_done || !back->is_done) {
		struct pollfd waited[] = { interest(there), interest(back) };

		if (poll(waited, 2, -1) < 0)
			continue;
		if (!move(there, waited[0].revents) || !move(back, waited[1].revents))
			return;
	}
}

void relay(int a, int b)
{
	struct flow *flows = malloc(2 * sizeof(*flows));

	if (!flows)
		return;
	flows[0] = (struct flow){ .from = a, .to = b };
	flows[1] = (struct flow){ .from = b, .to = a };
	set_nonblocking(a, true);
	set_nonblocking(b, true);
	run(&flows[0], &flows[1]);
	free(flows);
}
