// SPDX-License-Identifier: Apache-2.0
/* Packets of ZDS. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net.h"
#include "zds.h"

#define MAX_ERROR 4000

int zds_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int saved;

	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	if (fd < 0 || !connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* Returns how many there were. netns: the only one; else all are closed. */
static int take_fds(struct msghdr *message, int *netns)
{
	int count = 0;

	*netns = -1;
	for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each;
	     each = CMSG_NXTHDR(message, each)) {
		const unsigned char *end = (unsigned char *)each + each->cmsg_len;

		if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned char *at = CMSG_DATA(each); at + sizeof(int) <= end;
		     at += sizeof(int)) {
			int fd;

			memcpy(&fd, at, sizeof(fd));
			if (!count++)
				*netns = fd;
			else
				close(fd);
		}
	}
	if (count > 1) {
		close(*netns);
		*netns = -1;
	}
	return count;
}

ssize_t zds_receive(int fd, uint8_t *data, int *netns, const char **why)
{
	/* Padding makes room for two; a third one gives MSG_CTRUNC, and the kernel closes it. */
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec vec = { .iov_base = data, .iov_len = ZDS_MAX_PACKET };
	struct msghdr message = {
		.msg_iov = &vec,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

	*netns = -1;
	*why = len < 0 ? error_name(errno) : NULL;
	if (len < 0)
		return -1;
	if (take_fds(&message, netns) > 1)
		*why = "Expected 1 FD, got more";
	else if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		*why = "received truncated message";
	return *why ? -1 : len;
}

bool zds_send_hello(int fd)
{
	static const uint8_t hello[] = { 0x08, 0x01 };

	return send_all(fd, hello, sizeof(hello));
}

/* Field 1 of a message: a string or a message. Returns its size. */
static size_t put_field(uint8_t *to, const void *content, size_t len)
{
	uint8_t *at = to;
	size_t rest = len;

	*at++ = 0x0a;
	for (; rest > 0x7f; rest >>= 7)
		*at++ = rest | 0x80;
	*at++ = rest;
	memcpy(at, content, len);
	return at + len - to;
}

bool zds_send_ack(int fd, const char *error)
{
	uint8_t ack[MAX_ERROR + 4], response[MAX_ERROR + 8];
	size_t len = strnlen(error, MAX_ERROR);

	/* An empty string is not written. */
	len = len ? put_field(ack, error, len) : 0;
	return send_all(fd, response, put_field(response, ack, len));
}
