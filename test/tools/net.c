// SPDX-License-Identifier: Apache-2.0
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define STACK_SIZE (64 * 1024)

static bool parse_v6(union addr *addr, char *host)
{
	char *scope = strchr(host, '%');

	if (scope) {
		*scope++ = '\0';
		addr->v6.sin6_scope_id = if_nametoindex(scope);
		if (!addr->v6.sin6_scope_id)
			return false;
	}
	addr->v6.sin6_family = AF_INET6;
	return inet_pton(AF_INET6, host, &addr->v6.sin6_addr) == 1;
}

bool addr_parse(union addr *addr, const char *host, uint16_t port)
{
	char bare[ADDR_TEXT_SIZE] = "";
	size_t len = strlen(host);
	bool in_brackets = len > 2 && host[0] == '[' && host[len - 1] == ']';

	memset(addr, 0, sizeof(*addr));
	if (len >= sizeof(bare))
		return false;
	memcpy(bare, host + in_brackets, len - 2 * in_brackets);
	addr->v4.sin_family = AF_INET;
	if (inet_pton(AF_INET, bare, &addr->v4.sin_addr) != 1 && !parse_v6(addr, bare))
		return false;
	addr_set_port(addr, port);
	return true;
}

bool port_parse(uint16_t *port, const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	*port = value;
	return *text >= '0' && *text <= '9' && !*end && value <= UINT16_MAX;
}

bool addr_parse_endpoint(union addr *addr, const char *text, uint16_t default_port)
{
	char host[ADDR_TEXT_SIZE];
	const char *colon = strrchr(text, ':');
	uint16_t port;

	/* Several colons without brackets are an IPv6 address without a port. */
	if (!colon || (strchr(text, ':') != colon && colon[-1] != ']'))
		return addr_parse(addr, text, default_port);
	if ((size_t)(colon - text) >= sizeof(host) || !port_parse(&port, colon + 1))
		return false;
	memcpy(host, text, colon - text);
	host[colon - text] = '\0';
	return addr_parse(addr, host, port);
}

socklen_t addr_len(const union addr *addr)
{
	return addr->sa.sa_family == AF_INET6 ? sizeof(addr->v6) : sizeof(addr->v4);
}

/* sin_port and sin6_port are at the same place. */
uint16_t addr_port(const union addr *addr)
{
	return ntohs(addr->v4.sin_port);
}

void addr_set_port(union addr *addr, uint16_t port)
{
	addr->v4.sin_port = htons(port);
}

bool addr_is_mapped(const union addr *addr)
{
	return addr->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&addr->v6.sin6_addr);
}

void addr_canonical(union addr *addr)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = addr->v6.sin6_port };

	if (!addr_is_mapped(addr))
		return;
	memcpy(&v4.sin_addr, &addr->v6.sin6_addr.s6_addr[12], 4);
	addr->v4 = v4;
}

void addr_map(union addr *addr)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = addr->v4.sin_port };

	if (addr->sa.sa_family != AF_INET)
		return;
	memset(&v6.sin6_addr.s6_addr[10], 0xff, 2);
	memcpy(&v6.sin6_addr.s6_addr[12], &addr->v4.sin_addr, 4);
	addr->v6 = v6;
}

bool addr_is_loopback(const union addr *addr)
{
	if (addr->sa.sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&addr->v6.sin6_addr);
	return ntohl(addr->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

bool addr_same_ip(const union addr *a, const union addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr);
}

char *addr_ip_text(const union addr *addr, char *text)
{
	union addr canonical = *addr;

	addr_canonical(&canonical);
	if (canonical.sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &canonical.v6.sin6_addr, text, ADDR_TEXT_SIZE);
	else
		inet_ntop(AF_INET, &canonical.v4.sin_addr, text, ADDR_TEXT_SIZE);
	return text;
}

char *addr_text(const union addr *addr, char *text)
{
	char ip[ADDR_TEXT_SIZE];
	const char *format = strchr(addr_ip_text(addr, ip), ':') ? "[%s]:%u" : "%s:%u";

	snprintf(text, ADDR_TEXT_SIZE, format, ip, addr_port(addr));
	return text;
}

const char *error_name(int error)
{
	const char *name = error ? strerrorname_np(error) : "";

	return name ? name : "EUNKNOWN";
}

int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

int set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int own_netns(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int socket_in_netns(int netns, int home, int domain, int type, int protocol)
{
	int fd, saved;

	if (setns(netns, CLONE_NEWNET))
		return -1;
	fd = socket(domain, type | SOCK_CLOEXEC, protocol);
	saved = errno;
	/* A thread that is stuck in a pod's netns would do the next pod's work there. */
	if (setns(home, CLONE_NEWNET))
		abort();
	errno = saved;
	return fd;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

bool wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd waited = { .fd = fd, .events = events };
	long long deadline = now_ms() + timeout_ms;
	int ready;

	do {
		ready = poll(&waited, 1, timeout_ms);
		timeout_ms = deadline > now_ms() ? deadline - now_ms() : 0;
	} while (ready < 0 && errno == EINTR);
	return ready > 0;
}

int connect_within(int fd, const union addr *to, int timeout_ms)
{
	int error = 0;
	socklen_t len = sizeof(error);

	set_nonblocking(fd, true);
	if (!connect(fd, &to->sa, addr_len(to)))
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	if (!wait_for(fd, POLLOUT, timeout_ms))
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return error;
}

bool send_all(int fd, const void *data, size_t len)
{
	const char *next = data;

	while (len) {
		ssize_t sent = send(fd, next, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, 10000))
			continue;
		if (sent < 0)
			return false;
		next += sent;
		len -= sent;
	}
	return true;
}

void raise_nofile(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool start(pthread_t *thread, int detach_state, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	int error;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, detach_state);
	error = pthread_create(thread, &attr, run, arg);
	pthread_attr_destroy(&attr);
	return !error;
}

bool spawn(pthread_t *thread, void *(*run)(void *), void *arg)
{
	return start(thread, PTHREAD_CREATE_JOINABLE, run, arg);
}

bool spawn_detached(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	return start(&thread, PTHREAD_CREATE_DETACHED, run, arg);
}
