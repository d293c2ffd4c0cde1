// SPDX-License-Identifier: Apache-2.0
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "bench.h"

#define BACKLOG 4096
#define MAX_EVENTS 64

static int epoll, listener;

static void watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static void start(uint16_t port)
{
	union addr any;

	addr_parse(&any, "::", port);
	listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0 || bind(listener, &any.sa, addr_len(&any)) || listen(listener, BACKLOG))
		die("listen");
	epoll = epoll_create1(EPOLL_CLOEXEC);
	watch(listener);
}

static void take(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	set_int(fd, SOL_TCP, TCP_NODELAY, 1);
	watch(fd);
}

/* A reset at the end, so that a proxy does not run out of ports. */
static void answer(int fd)
{
	static char buffer[262144];
	ssize_t len = recv(fd, buffer, sizeof(buffer), 0);

	if (len <= 0 || (*buffer != SUNK && !send_all(fd, buffer, len)))
		close_hard(fd);
}

void serve(uint16_t port)
{
	struct epoll_event events[MAX_EVENTS];

	start(port);
	puts("listening");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(epoll, events, MAX_EVENTS, -1);

		for (int i = 0; i < count; i++) {
			if (events[i].data.fd == listener)
				take();
			else
				answer(events[i].data.fd);
		}
	}
}
