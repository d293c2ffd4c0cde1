// SPDX-License-Identifier: Apache-2.0
/* sock sink: in the place of a proxy. Tells each client its original destination, and holds the
 * connection; in several processes, because one may have too few open files.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sock.h"

#define BACKLOG 4096
/* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: their headers do not go together with netinet/in.h. */
#define ORIGINAL_DST 80
/* Open files that are not connections. */
#define OTHER_FILES 16

static struct {
	int port;
	int processes;
} wanted = { .port = 15001, .processes = 1 };

static const struct option_spec options[] = {
	NUMBER("port", &wanted.port),
	NUMBER("processes", &wanted.processes),
	{ 0 },
};

static int listen_on(uint16_t port)
{
	union addr addr = parse_endpoint("::", port);
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) ||
	    bind(fd, &addr.sa, addr_len(&addr)) || listen(fd, BACKLOG)) {
		fprintf(stderr, "sock: sink: %s\n", error_name(errno));
		exit(1);
	}
	return fd;
}

/* NULL: there is none. text: ADDR_TEXT_SIZE bytes. */
static const char *original_text(int fd, char *text)
{
	union addr original = { 0 };
	socklen_t len = sizeof(original);

	if (getsockopt(fd, SOL_IP, ORIGINAL_DST, &original, &len)) {
		len = sizeof(original);
		if (getsockopt(fd, SOL_IPV6, ORIGINAL_DST, &original, &len))
			return NULL;
	}
	return addr_text(&original, text);
}

static void greet(int fd)
{
	char text[ADDR_TEXT_SIZE];
	struct json json;

	json_open(&json);
	json_str(&json, "original", original_text(fd, text));
	json_close(&json);
	send_all(fd, json.text, json.len);
}

/* Until this process is full: the next connections are the others'. */
static void accept_all(int listener)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	for (rlim_t held = OTHER_FILES; held < limit.rlim_cur;) {
		int fd;

		wait_for(listener, POLLIN, -1);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		greet(fd);
		held++;
	}
}

static void start_process(int listener)
{
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	accept_all(listener);
	for (;;)
		pause();
}

int sink(int argc, char **argv)
{
	struct json json;
	int listener;

	if (parse_options(options, argc, argv))
		misuse(argv[1]);
	listener = listen_on(wanted.port);
	for (int i = 0; i < wanted.processes; i++)
		start_process(listener);
	json_open(&json);
	json_str(&json, "event", "listening");
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	for (;;)
		pause();
}
