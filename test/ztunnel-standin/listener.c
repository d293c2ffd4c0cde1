// SPDX-License-Identifier: Apache-2.0
/* The listeners of a workload: a thread each. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "standin.h"

atomic_int listener_mode = MODE_RUNNING;

static void *listener_run(void *arg)
{
	struct listener *listener = arg;
	eventfd_t ignored;

	while (!listener->is_closing) {
		struct pollfd waited[] = {
			{ .fd = listener->wake, .events = POLLIN },
			{ .fd = listener_mode == MODE_STALLED ? -1 : listener->fd, .events = POLLIN },
		};

		poll(waited, 2, -1);
		if (waited[0].revents)
			eventfd_read(listener->wake, &ignored);
		/* Stalled since the poll began: what comes after the command is not accepted. */
		if (!waited[1].revents || listener_mode == MODE_STALLED)
			continue;
		/* Out of file descriptors: the queue stays full, do not spin. */
		if (!listener->take(listener) && errno != EAGAIN)
			usleep(10000);
	}
	while (listener_mode == MODE_DRAINING && listener->take(listener))
		;
	return NULL;
}

void listeners_wake(struct workload *workload)
{
	for (struct listener *each = workload->listeners; each; each = each->next)
		eventfd_write(each->wake, 1);
}

void listeners_close(struct workload *workload)
{
	struct listener *listener;

	for (listener = workload->listeners; listener; listener = listener->next)
		listener->is_closing = true;
	listeners_wake(workload);
	while ((listener = workload->listeners)) {
		pthread_join(listener->thread, NULL);
		close(listener->fd);
		close(listener->wake);
		workload->listeners = listener->next;
		free(listener);
	}
}

/* 0 or an errno value. Owns fd. */
static int start_listener(struct workload *workload, int fd, uint16_t port,
			  bool (*take)(struct listener *), void (*handle)(struct conn *))
{
	struct listener *listener;

	if (fd < 0)
		return errno;
	listener = calloc(1, sizeof(*listener));
	listener->workload = workload;
	listener->fd = fd;
	listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	listener->port = port;
	listener->take = take;
	listener->handle = handle;
	if (!spawn(&listener->thread, listener_run, listener)) {
		close(fd);
		close(listener->wake);
		free(listener);
		return EAGAIN;
	}
	listener->next = workload->listeners;
	workload->listeners = listener;
	return 0;
}

static int start_dns(struct workload *workload, const char *host)
{
	union addr addr;
	int error;

	addr_parse(&addr, host, DNS_PORT);
	error = start_listener(workload, listen_tcp(workload, &addr), DNS_PORT, take_connection,
			       serve_dns);
	if (error)
		return error;
	return start_listener(workload, listen_udp(workload, &addr), DNS_PORT, take_dns_query,
			      NULL);
}

/* Dual stack; IPv4 alone where the kernel has no IPv6. */
static int start_tcp(struct workload *workload, uint16_t port, void (*handle)(struct conn *))
{
	union addr addr;
	int fd = -1;

	addr_parse(&addr, "::", port);
	errno = EAFNOSUPPORT;
	if (!config.ipv4_only)
		fd = listen_tcp(workload, &addr);
	if (fd < 0 && errno == EAFNOSUPPORT) {
		addr_parse(&addr, "0.0.0.0", port);
		fd = listen_tcp(workload, &addr);
	}
	return start_listener(workload, fd, port, take_connection, handle);
}

static int start_dns_v6(struct workload *workload)
{
	int error = config.ipv4_only ? 0 : start_dns(workload, "::1");

	/* A pod without ::1 has none. */
	return error == EADDRNOTAVAIL || error == EAFNOSUPPORT ? 0 : error;
}

/* In the order of ztunnel. 0 or an errno value. */
int listeners_start(struct workload *workload)
{
	int error = start_dns(workload, "127.0.0.1");

	if (!error)
		error = start_dns_v6(workload);
	if (!error)
		error = start_tcp(workload, HBONE_PORT, serve_hbone);
	if (!error)
		error = start_tcp(workload, INBOUND_PORT, serve_inbound);
	if (!error)
		error = start_tcp(workload, OUTBOUND_PORT, serve_outbound);
	return error;
}

