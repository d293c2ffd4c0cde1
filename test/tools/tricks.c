// SPDX-License-Identifier: Apache-2.0
/* Sockets and options of somebody who wants to get past a proxy. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/ip.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sock.h"

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

/* SCM_RIGHTS. fd -1: nothing is sent. */
static void send_fd(int channel, int fd)
{
	union control control = { 0 };
	struct iovec part = { .iov_base = "", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd < 0)
		return;
	message.msg_control = control.bytes;
	message.msg_controllen = sizeof(control.bytes);
	control.header = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	sendmsg(channel, &message, 0);
}

static int receive_fd(int channel)
{
	union control control;
	char byte;
	struct iovec part = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	int fd;

	errno = EBADF;
	if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1 || !message.msg_controllen)
		return -1;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

static bool enter_cgroup(const char *dir)
{
	char path[PATH_MAX];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, "0", 1) == 1;
	close(fd);
	return ok;
}

static int socket_elsewhere(const struct client *client)
{
	int netns = open(client->passed_from, O_RDONLY | O_CLOEXEC);

	if (netns < 0 || setns(netns, CLONE_NEWNET))
		return -1;
	if (client->passed_cgroup && !enter_cgroup(client->passed_cgroup))
		return -1;
	return socket(client->to.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int receive_passed_socket(const struct client *client)
{
	int channel[2], fd;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel))
		return -1;
	child = fork();
	if (!child) {
		send_fd(channel[1], socket_elsewhere(client));
		_exit(0);
	}
	close(channel[1]);
	fd = receive_fd(channel[0]);
	close(channel[0]);
	waitpid(child, NULL, 0);
	return fd;
}

/* Was a connection that accept() gave, and has its record still. */
int recycled_socket(int family)
{
	union addr addr;
	struct sockaddr unspecified = { .sa_family = AF_UNSPEC };
	socklen_t len = sizeof(addr);
	int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int accepted = -1;

	/* The address of the listener stays bound; so none. */
	addr_parse(&addr, family == AF_INET6 ? "::" : "0.0.0.0", 0);
	if (!bind(listener, &addr.sa, addr_len(&addr)) && !listen(listener, 1) &&
	    !getsockname(listener, &addr.sa, &len) && !connect(client, &addr.sa, len))
		accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	close(listener);
	close(client);
	if (accepted >= 0 && connect(accepted, &unspecified, sizeof(unspecified)))
		return -1;
	return accepted;
}

int set_first_hop(int fd, const char *ip)
{
	/* Loose source route with one hop, padded to words. */
	unsigned char option[8] = { IPOPT_NOP, IPOPT_LSRR, 7, IPOPT_MINOFF };

	if (inet_pton(AF_INET, ip, option + 4) != 1)
		misuse(ip);
	return setsockopt(fd, SOL_IP, IP_OPTIONS, option, sizeof(option));
}
