// SPDX-License-Identifier: Apache-2.0
/* sock flood: as many unanswered connects as can be, held until stdin says something. With
 * --disconnect, that ends them by connect(AF_UNSPEC), and the sockets stay open until stdin says
 * something again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sock.h"

static struct {
	int count;
	union addr bind;
	bool has_bind;
	bool disconnect;
} wanted = { .count = 1000 };

/* Of those that were begun. */
static int *fds;

static void set_bind(const char *text)
{
	wanted.bind = parse_endpoint(text, 0);
	wanted.has_bind = true;
}

static const struct option_spec options[] = {
	NUMBER("count", &wanted.count),
	CALL("bind", set_bind),
	FLAG("disconnect", &wanted.disconnect),
	{ 0 },
};

/* 0, EINPROGRESS, or what refused it. The socket stays open. */
static int begin(const union addr *to, int *fd)
{
	*fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return errno;
	if (wanted.has_bind && bind(*fd, &wanted.bind.sa, addr_len(&wanted.bind)))
		return errno;
	return connect(*fd, &to->sa, addr_len(to)) ? errno : 0;
}

static void disconnect_all(int count)
{
	struct sockaddr unspecified = { .sa_family = AF_UNSPEC };

	for (int i = 0; i < count; i++)
		connect(fds[i], &unspecified, sizeof(unspecified));
}

static void report(int begun, int refused, int error)
{
	struct json json;

	json_open(&json);
	json_bool(&json, "ok", true);
	json_int(&json, "begun", begun);
	json_int(&json, "refused", refused);
	json_str(&json, "error", error_name(error));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

int flood(int argc, char **argv)
{
	int begun = 0, refused = 0, last = 0;
	union addr to;
	uint16_t port;
	char line[16];

	if (parse_options(options, argc, argv) != 2 || !port_parse(&port, argv[2]) ||
	    !addr_parse(&to, argv[1], port))
		misuse("flood wants HOST PORT");
	fds = calloc(wanted.count, sizeof(*fds));
	for (int i = 0; i < wanted.count; i++) {
		int error = begin(&to, &fds[begun]);

		if (!error || error == EINPROGRESS) {
			begun++;
			continue;
		}
		refused++;
		last = error;
	}
	report(begun, refused, last);
	fgets(line, sizeof(line), stdin);
	if (wanted.disconnect) {
		disconnect_all(begun);
		fgets(line, sizeof(line), stdin);
	}
	return 0;
}
