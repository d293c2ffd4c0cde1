// SPDX-License-Identifier: Apache-2.0
/* Connections: a thread each. They hold their workload. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "standin.h"

/* Guards the lists of connections, and what is counted. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int open_conns;

static void put_locked(struct workload *workload)
{
	if (--workload->refs)
		return;
	close(workload->netns);
	free(workload->path);
	free(workload->uid);
	free(workload);
}

void conns_end(struct workload *workload)
{
	pthread_mutex_lock(&lock);
	workload->is_withdrawn = true;
	for (struct conn *conn = workload->conns; conn; conn = conn->next) {
		shutdown(conn->client, SHUT_RDWR);
		if (conn->upstream >= 0)
			shutdown(conn->upstream, SHUT_RDWR);
	}
	put_locked(workload);
	pthread_mutex_unlock(&lock);
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
	put_locked(conn->workload);
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

bool take_connection(struct listener *listener)
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

void conns_await_end(int timeout_ms)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += timeout_ms / 1000;
	pthread_mutex_lock(&lock);
	while (open_conns && pthread_cond_timedwait(&ended, &lock, &deadline) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&lock);
}
