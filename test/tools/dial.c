// SPDX-License-Identifier: Apache-2.0
/* The steps of a client's connection. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "sock.h"

static const char end_of_file[] = "EOF";

bool become_user(const struct client *client, struct failure *failure)
{
	if (client->gid >= 0 &&
	    (setgroups(0, NULL) || setresgid(client->gid, client->gid, client->gid)))
		return fail(failure, "gid");
	if (client->uid >= 0 && setresuid(client->uid, client->uid, client->uid))
		return fail(failure, "uid");
	return true;
}

static int make_socket(const struct client *client)
{
	int family = client->to.sa.sa_family;
	int protocol = client->mptcp ? IPPROTO_MPTCP : 0;
	int netns, home, fd;

	if (client->passed_from)
		return receive_passed_socket(client);
	if (client->recycled)
		return recycled_socket(family);
	if (!client->netns)
		return socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);
	netns = open(client->netns, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return -1;
	home = own_netns();
	fd = socket_in_netns(netns, home, family, SOCK_STREAM, protocol);
	close(home);
	close(netns);
	return fd;
}

static bool set_transparent(const struct client *client, int fd)
{
	if (client->to.sa.sa_family == AF_INET6)
		return !set_int(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
	return !set_int(fd, SOL_IP, IP_TRANSPARENT, 1);
}

static bool set_freebind(const struct client *client, int fd)
{
	if (client->to.sa.sa_family == AF_INET6)
		return !set_int(fd, SOL_IPV6, IPV6_FREEBIND, 1);
	return !set_int(fd, SOL_IP, IP_FREEBIND, 1);
}

static bool bind_device(const struct client *client, int fd)
{
	return !setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, client->device, strlen(client->device));
}

/* Also the timeout of a blocking connect. */
static void set_timeouts(const struct client *client, int fd)
{
	struct timeval timeout = {
		.tv_sec = client->timeout_ms / 1000,
		.tv_usec = client->timeout_ms % 1000 * 1000,
	};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

static bool configure(const struct client *client, int fd, struct failure *failure)
{
	set_timeouts(client, fd);
	if (client->mark && set_int(fd, SOL_SOCKET, SO_MARK, client->mark))
		return fail(failure, "mark");
	if (client->device && !bind_device(client, fd))
		return fail(failure, "device");
	if (client->transparent && !set_transparent(client, fd))
		return fail(failure, "transparent");
	if (client->freebind && !set_freebind(client, fd))
		return fail(failure, "freebind");
	if (client->first_hop && set_first_hop(fd, client->first_hop))
		return fail(failure, "first-hop");
	if (client->fastopen_connect && set_int(fd, SOL_TCP, TCP_FASTOPEN_CONNECT, 1))
		return fail(failure, "fastopen-connect");
	if (client->reuseaddr && set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1))
		return fail(failure, "reuseaddr");
	if (client->has_bind && bind(fd, &client->bind.sa, addr_len(&client->bind)))
		return fail(failure, "bind");
	return true;
}

int open_socket(const struct client *client, struct failure *failure)
{
	int fd = make_socket(client);

	if (fd < 0) {
		fail(failure, "socket");
		return -1;
	}
	if (configure(client, fd, failure))
		return fd;
	close(fd);
	return -1;
}

/* 0 or an errno value. */
static int connect_once(const struct client *client, int fd)
{
	const union addr *to = &client->to;
	int error;

	if (client->io_uring || client->io_uring_async)
		return connect_by_io_uring(fd, to, client->io_uring_async, client->timeout_ms);
	if (client->nonblock) {
		error = connect_within(fd, to, client->timeout_ms);
		set_nonblocking(fd, false);
		return error;
	}
	if (!connect(fd, &to->sa, addr_len(to)))
		return 0;
	return errno == EINPROGRESS ? ETIMEDOUT : errno;
}

static bool disconnect(int fd)
{
	struct sockaddr unspecified = { .sa_family = AF_UNSPEC };

	return !connect(fd, &unspecified, sizeof(unspecified));
}

/* Byte by byte: what follows the answer is the application's. */
static bool read_status(int fd, char *status, size_t size)
{
	for (size_t len = 0; len < size && recv(fd, status + len, 1, 0) == 1; len++) {
		if (status[len] == '\n') {
			status[len] = '\0';
			return true;
		}
	}
	return false;
}

/* The error of a refusal is what the proxy answered. */
static bool open_tunnel(const struct client *client, int fd, struct failure *failure)
{
	static __thread char status[64];
	char line[ADDR_TEXT_SIZE + 16];
	int len = snprintf(line, sizeof(line), "CONNECT %s\n", client->hbone);

	errno = EPROTO;
	if (!send_all(fd, line, len) || !read_status(fd, status, sizeof(status)))
		return fail(failure, "hbone");
	if (!strcmp(status, "200"))
		return true;
	*failure = (struct failure){ .at = "hbone", .error = status };
	return false;
}

static bool connect_and_greet(const struct client *client, int fd, struct failure *failure)
{
	errno = connect_once(client, fd);
	if (errno)
		return fail(failure, "connect");
	if (client->hbone && !open_tunnel(client, fd, failure))
		return false;
	/* A server that has closed may have said why. */
	send_all(fd, client->hello, strlen(client->hello));
	return true;
}

/* The greeting travels in the SYN, or after the handshake when the client has no cookie yet. */
static bool connect_fast(const struct client *client, int fd, struct failure *failure)
{
	const union addr *to = &client->to;
	size_t len = strlen(client->hello);

	if (sendto(fd, client->hello, len, MSG_FASTOPEN, &to->sa, addr_len(to)) == (ssize_t)len)
		return true;
	if (errno == EINPROGRESS)
		errno = ETIMEDOUT;
	return fail(failure, "connect");
}

bool dial(const struct client *client, int fd, struct failure *failure)
{
	if (client->disconnect) {
		errno = connect_once(client, fd);
		if (errno)
			return fail(failure, "connect");
		if (!disconnect(fd))
			return fail(failure, "disconnect");
	}
	if (client->fastopen)
		return connect_fast(client, fd, failure);
	return connect_and_greet(client, fd, failure);
}

/* false at the end, too. */
static bool receive(int fd, char *at, size_t size, size_t *len, struct failure *failure)
{
	ssize_t received = recv(fd, at + *len, size - 1 - *len, 0);

	failure->at = "read";
	if (received > 0) {
		*len += received;
		at[*len] = '\0';
		return true;
	}
	failure->error = end_of_file;
	if (received < 0)
		failure->error = errno == EAGAIN ? "ETIMEDOUT" : error_name(errno);
	return false;
}

/* The whole response until the server closes; line becomes the body's first line. */
static bool read_http(int fd, char *line, size_t size, struct failure *failure)
{
	size_t len = 0;
	char *body;

	while (receive(fd, line, size, &len, failure))
		;
	body = strstr(line, "\r\n\r\n");
	if (failure->error != end_of_file || !body)
		return false;
	memmove(line, body + 4, strlen(body + 4) + 1);
	return true;
}

static bool read_line(int fd, char *line, size_t size, struct failure *failure)
{
	size_t len = 0;

	while (!strchr(line, '\n')) {
		if (!receive(fd, line, size, &len, failure))
			return false;
	}
	return true;
}

bool read_reply(const struct client *client, int fd, char *line, size_t size,
		struct failure *failure)
{
	bool ok;

	*line = '\0';
	ok = client->http ? read_http(fd, line, size, failure) : read_line(fd, line, size, failure);
	line[strcspn(line, "\r\n")] = '\0';
	if (ok)
		failure->error = "";
	return ok;
}

bool talk(const struct client *client, int fd, struct failure *failure)
{
	char line[2048];

	if (!dial(client, fd, failure))
		return false;
	if (client->no_read)
		return true;
	if (!read_reply(client, fd, line, sizeof(line), failure))
		return false;
	if (!client->expect || strstr(line, client->expect))
		return true;
	errno = EBADMSG;
	return fail(failure, "reply");
}

bool exchange(int fd, const char *text, char *echo, size_t size, bool half_close,
	      struct failure *failure)
{
	size_t len = 0, wanted = strlen(text);

	*echo = '\0';
	if (!send_all(fd, text, wanted))
		return fail(failure, "write");
	if (half_close)
		shutdown(fd, SHUT_WR);
	while (half_close || len < wanted) {
		if (!receive(fd, echo, size, &len, failure))
			break;
	}
	if (len < wanted || (half_close && failure->error != end_of_file))
		return false;
	failure->error = "";
	return true;
}
