// SPDX-License-Identifier: Apache-2.0
/* sock churn: short connections, one after the other, until stdin says something. */
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "sock.h"
#include "tally.h"

#define MAX_WORKERS 64

static struct client client = {
	.timeout_ms = DEFAULT_TIMEOUT_MS,
	.uid = -1,
	.gid = -1,
	.hello = "\n",
};
static struct {
	int workers;
	/* Of each worker, after each connection */
	int pause_ms;
} wanted = { .workers = 4, .pause_ms = 10 };

static struct tally errors = TALLY;
static atomic_int made, ok;
static atomic_bool is_over;

static const struct option_spec options[] = {
	NUMBER("timeout", &client.timeout_ms),
	TEXT("expect", &client.expect),
	NUMBER("workers", &wanted.workers),
	NUMBER("pause", &wanted.pause_ms),
	{ 0 },
};

static void connect_and_close(void)
{
	struct failure failure = { .error = "" };
	int fd = open_socket(&client, &failure);

	made++;
	if (fd >= 0 && talk(&client, fd, &failure))
		ok++;
	else
		tally_add(&errors, failure.error);
	if (fd >= 0)
		close(fd);
}

static void *work(void *unused)
{
	(void)unused;
	while (!is_over) {
		connect_and_close();
		usleep(wanted.pause_ms * 1000);
	}
	return NULL;
}

static void report(void)
{
	struct json json;

	json_open(&json);
	json_int(&json, "made", made);
	json_int(&json, "ok", ok);
	tally_put(&errors, &json, "errors");
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

int churn(int argc, char **argv)
{
	pthread_t threads[MAX_WORKERS];
	uint16_t port;

	if (parse_options(options, argc, argv) != 2 || !port_parse(&port, argv[2]) ||
	    !addr_parse(&client.to, argv[1], port) || wanted.workers > MAX_WORKERS)
		misuse("churn wants HOST PORT");
	for (int i = 0; i < wanted.workers; i++) {
		if (!spawn(&threads[i], work, NULL))
			misuse("too many threads");
	}
	wait_for(STDIN_FILENO, POLLIN, -1);
	is_over = true;
	for (int i = 0; i < wanted.workers; i++)
		pthread_join(threads[i], NULL);
	report();
	return 0;
}
