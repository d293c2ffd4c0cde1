// SPDX-License-Identifier: Apache-2.0
/* sock redial: connects again and again until it is ended, and tells of each attempt when it was and
 * whom the server saw. Each has a port of its own, below those that the kernel chooses: the port of
 * a proxy in the same netns is never the client's by chance.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sock.h"

#define FIRST_PORT 16000
#define PORTS 16000

static struct client client = {
	.timeout_ms = DEFAULT_TIMEOUT_MS,
	.uid = -1,
	.gid = -1,
	.hello = "\n",
	.has_bind = true,
	.reuseaddr = true,
};
static int pause_ms;

static const struct option_spec options[] = {
	NUMBER("timeout", &client.timeout_ms),
	NUMBER("pause", &pause_ms),
	{ 0 },
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void put_failure(struct json *json, const struct failure *failure)
{
	json_bool(json, "ok", !*failure->error);
	if (!*failure->error)
		return;
	json_str(json, "error", failure->error);
	json_str(json, "at", failure->at);
}

static bool greet(int fd, union addr *local, char *reply, size_t size, struct failure *failure)
{
	socklen_t len = sizeof(*local);

	if (!dial(&client, fd, failure))
		return false;
	getsockname(fd, &local->sa, &len);
	return read_reply(&client, fd, reply, size, failure);
}

static void attempt(void)
{
	struct failure failure = { .error = "" };
	union addr local = client.bind;
	char reply[2048] = "", text[ADDR_TEXT_SIZE];
	long long from = now_ms();
	int fd = open_socket(&client, &failure);
	bool ok = fd >= 0 && greet(fd, &local, reply, sizeof(reply), &failure);
	struct json json;

	json_open(&json);
	json_int(&json, "from", from);
	json_int(&json, "to", now_ms() + 1);
	put_failure(&json, &failure);
	json_str(&json, "local", addr_text(&local, text));
	json_raw(&json, "reply", ok && *reply == '{' ? reply : NULL);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	if (fd >= 0)
		close(fd);
}

int redial(int argc, char **argv)
{
	uint16_t port;

	if (parse_options(options, argc, argv) != 2 || !port_parse(&port, argv[2]) ||
	    !addr_parse(&client.to, argv[1], port))
		misuse("redial wants HOST PORT");
	client.bind.sa.sa_family = client.to.sa.sa_family;
	for (int i = 0;; i = (i + 1) % PORTS) {
		addr_set_port(&client.bind, FIRST_PORT + i);
		attempt();
		usleep(pause_ms * 1000);
	}
}
