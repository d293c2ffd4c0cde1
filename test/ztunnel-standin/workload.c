// SPDX-License-Identifier: Apache-2.0
/* Workloads, their listeners (a thread each) and their connections (a thread each). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "standin.h"

static atomic_int mode = MODE_RUNNING;

/* Guards the lists, and what is counted. Only the command thread changes the list of workloads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct workload *workloads;
static int open_conns;

static void workload_put(struct workload *workload)
{
	if (--workload->refs)
		return;
	close(workload->netns);
	free(workload->path);
	free(workload);
}

static void conn_begin(struct conn *conn)
{
	struct workload *workload = conn->workload;

	pthread_mutex_lock(&lock);
	conn->next = workload->conns;
	conn->link = &workload->conns;
	if (conn->next)
		conn->next->link = &conn->next;
	workload->conns = conn;
	workload->refs++;
	open_conns++;
	pthread_mutex_unlock(&lock);
}

static void conn_end(struct conn *conn)
{
	pthread_mutex_lock(&lock);
	*conn->link = conn->next;
	if (conn->next)
		conn->next->link = conn->link;
	close(conn->client);
	if (conn->upstream >= 0)
		close(conn->upstream);
	workload_put(conn->workload);
	if (!--open_conns)
		pthread_cond_signal(&ended);
	pthread_mutex_unlock(&lock);
	free(conn);
}

bool conn_set_upstream(struct conn *conn, int fd)
{
	bool is_withdrawn;

	pthread_mutex_lock(&lock);
	is_withdrawn = conn->workload->is_withdrawn;
	conn->upstream = is_withdrawn ? -1 : fd;
	pthread_mutex_unlock(&lock);
	if (is_withdrawn)
		close(fd);
	return !is_withdrawn;
}

static void *conn_run(void *arg)
{
	struct conn *conn = arg;

	conn->handle(conn);
	conn_end(conn);
	return NULL;
}

static bool take_connection(struct listener *listener)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	socklen_t len = sizeof(conn->peer), local_len = sizeof(conn->local);

	conn->client = accept4(listener->fd, &conn->peer.sa, &len, SOCK_CLOEXEC);
	if (conn->client < 0) {
		free(conn);
		return false;
	}
	getsockname(conn->client, &conn->local.sa, &local_len);
	addr_canonical(&conn->peer);
	addr_canonical(&conn->local);
	conn->workload = listener->workload;
	conn->port = listener->port;
	conn->handle = listener->handle;
	conn->upstream = -1;
	conn_begin(conn);
	if (!spawn_detached(conn_run, conn))
		conn_end(conn);
	return true;
}

static void *listener_run(void *arg)
{
	struct listener *listener = arg;
	eventfd_t ignored;

	while (!listener->is_closing) {
		struct pollfd waited[] = {
			{ .fd = listener->wake, .events = POLLIN },
			{ .fd = mode == MODE_STALLED ? -1 : listener->fd, .events = POLLIN },
		};

		poll(waited, 2, -1);
		if (waited[0].revents)
			eventfd_read(listener->wake, &ignored);
		/* Out of file descriptors: the queue stays full, do not spin. */
		if (waited[1].revents && !listener->take(listener) && errno != EAGAIN)
			usleep(10000);
	}
	while (mode == MODE_DRAINING && listener->take(listener))
		;
	return NULL;
}

static void listener_wake(struct listener *listener)
{
	eventfd_write(listener->wake, 1);
}

static void close_listeners(struct workload *workload)
{
	struct listener *listener;

	for (listener = workload->listeners; listener; listener = listener->next) {
		listener->is_closing = true;
		listener_wake(listener);
	}
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
static int start_listeners(struct workload *workload)
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

static struct workload **find(const char *path)
{
	struct workload **at = &workloads;

	while (*at && strcmp((*at)->path, path))
		at = &(*at)->next;
	return at;
}

static void withdraw(struct workload **at)
{
	struct workload *workload = *at;

	*at = workload->next;
	close_listeners(workload);
	pthread_mutex_lock(&lock);
	workload->is_withdrawn = true;
	for (struct conn *conn = workload->conns; conn; conn = conn->next) {
		shutdown(conn->client, SHUT_RDWR);
		if (conn->upstream >= 0)
			shutdown(conn->upstream, SHUT_RDWR);
	}
	workload_put(workload);
	pthread_mutex_unlock(&lock);
}

const char *workload_add(const char *path)
{
	struct workload **at = find(path), *workload;
	int netns, error;

	if (*at)
		return "added already";
	netns = config.shared ? own_netns() : open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return error_name(errno);
	workload = calloc(1, sizeof(*workload));
	workload->path = strdup(path);
	workload->netns = netns;
	workload->refs = 1;
	*at = workload;
	error = start_listeners(workload);
	if (error)
		withdraw(at);
	return error_name(error);
}

const char *workload_del(const char *path)
{
	struct workload **at = find(path);

	if (!*at)
		return "not added";
	withdraw(at);
	return "";
}

void workload_set_mode(enum mode wanted)
{
	mode = wanted;
	for (struct workload *workload = workloads; workload; workload = workload->next) {
		for (struct listener *each = workload->listeners; each; each = each->next)
			listener_wake(each);
	}
}

void workload_close_listeners(void)
{
	for (struct workload *workload = workloads; workload; workload = workload->next)
		close_listeners(workload);
}

void workload_await_end(int timeout_ms)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += timeout_ms / 1000;
	pthread_mutex_lock(&lock);
	while (open_conns && pthread_cond_timedwait(&ended, &lock, &deadline) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&lock);
}
