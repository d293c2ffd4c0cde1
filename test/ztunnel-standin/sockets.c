// SPDX-License-Identifier: Apache-2.0
/* The sockets, with the options and in the order of ztunnel. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "standin.h"

#define BACKLOG 128
#define KEEPALIVE_S 180
#define KEEPALIVE_PROBES 9
/* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: their headers do not go together with netinet/in.h. */
#define ORIGINAL_DST 80

/* Gives -1, and keeps errno. */
static int fail(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

static int pod_socket(const struct workload *workload, int family, int type)
{
	int fd = socket_in_netns(workload->netns, config.home_netns, family, type, 0);

	if (fd >= 0 && !config.no_mark && set_int(fd, SOL_SOCKET, SO_MARK, config.mark))
		return fail(fd);
	return fd;
}

/* V6ONLY only for [::1], which is a socket of its own beside 127.0.0.1. */
static int bound_socket(const struct workload *workload, const union addr *addr, int type)
{
	int fd = pod_socket(workload, addr->sa.sa_family, type | SOCK_NONBLOCK);

	if (fd < 0)
		return -1;
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (addr->sa.sa_family == AF_INET6)
		set_int(fd, SOL_IPV6, IPV6_V6ONLY, addr_is_loopback(addr));
	if (bind(fd, &addr->sa, addr_len(addr)))
		return fail(fd);
	return fd;
}

int listen_tcp(const struct workload *workload, const union addr *addr)
{
	int fd = bound_socket(workload, addr, SOCK_STREAM);

	if (fd < 0)
		return -1;
	if (listen(fd, BACKLOG))
		return fail(fd);
	/* Also on AF_INET6, and not for DNS. */
	if (!addr_is_loopback(addr) && set_int(fd, SOL_IP, IP_TRANSPARENT, 1))
		return fail(fd);
	return fd;
}

int listen_udp(const struct workload *workload, const union addr *addr)
{
	return bound_socket(workload, addr, SOCK_DGRAM);
}

void set_keepalive(int fd)
{
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, SOL_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
	set_int(fd, SOL_TCP, TCP_KEEPINTVL, KEEPALIVE_S);
	set_int(fd, SOL_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

/* Like freebind_connect(): a source that cannot be bound is only reported. */
static void spoof(struct conn *conn, int fd, const union addr *source)
{
	bool v6 = source->sa.sa_family == AF_INET6;
	char text[ADDR_TEXT_SIZE];
	int level = v6 ? SOL_IPV6 : SOL_IP;

	conn->source = *source;
	addr_set_port(&conn->source, 0);
	conn->has_source = true;
	if (!set_int(fd, level, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1) &&
	    !set_int(fd, level, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1) &&
	    !bind(fd, &conn->source.sa, addr_len(&conn->source)))
		return;
	snprintf(conn->error, sizeof(conn->error), "bind %s: %s", addr_text(&conn->source, text),
		 error_name(errno));
}

int dial(struct conn *conn, const union addr *to, const union addr *source)
{
	int fd;

	if (source && addr_same_ip(source, to))
		source = NULL;
	conn->dialled = *to;
	conn->is_dialled = true;
	fd = pod_socket(conn->workload, (source ? source : to)->sa.sa_family, SOCK_STREAM);
	if (fd < 0)
		return errno;
	set_int(fd, SOL_TCP, TCP_NODELAY, 1);
	set_keepalive(fd);
	if (!conn_set_upstream(conn, fd))
		return ECANCELED;
	if (source)
		spoof(conn, fd, source);
	return connect_within(fd, to, CONNECT_TIMEOUT_MS);
}

void find_original(struct conn *conn)
{
	socklen_t len = sizeof(conn->original);

	conn->via = "SOL_IP";
	if (!getsockopt(conn->client, SOL_IP, ORIGINAL_DST, &conn->original, &len))
		goto found;
	len = sizeof(conn->original);
	conn->via = "SOL_IPV6";
	if (!getsockopt(conn->client, SOL_IPV6, ORIGINAL_DST, &conn->original, &len))
		goto found;
	conn->via = "getsockname";
	conn->original = config.has_upstream ? config.upstream : conn->local;
found:
	addr_canonical(&conn->original);
}
