// SPDX-License-Identifier: Apache-2.0
/* sock connect --count: many connections, open at the same time, counted by how they ended. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"
#include "tally.h"

#define WORKERS 64

static const struct client *client;
static struct tally errors = TALLY;
/* -1: not connected */
static int *fds;

static int connect_counted(void)
{
	struct failure failure = { .error = "" };
	int fd = open_socket(client, &failure);

	if (fd >= 0 && talk(client, fd, &failure))
		return fd;
	tally_add(&errors, failure.error);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* arg: number of the worker */
static void *work(void *arg)
{
	for (long i = (long)arg; i < client->count; i += WORKERS)
		fds[i] = connect_counted();
	return NULL;
}

static void run_workers(void)
{
	pthread_t threads[WORKERS];

	for (long i = 0; i < WORKERS; i++) {
		if (!spawn(&threads[i], work, (void *)i))
			misuse("too many threads");
	}
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
}

static int count_open(void)
{
	int count = 0;

	for (int i = 0; i < client->count; i++)
		count += fds[i] >= 0;
	return count;
}

static bool is_alive(int fd)
{
	struct failure failure;
	char echo[16];

	return fd >= 0 && exchange(fd, "alive?", echo, sizeof(echo), false, &failure) &&
	       !strcmp(echo, "alive?");
}

static int count_alive(void)
{
	int count = 0;

	for (int i = 0; i < client->count; i++)
		count += is_alive(fds[i]);
	return count;
}

static void print_counts(void)
{
	struct json json;

	json_open(&json);
	json_int(&json, "count", client->count);
	json_int(&json, "ok", count_open());
	tally_put(&errors, &json, "errors");
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static void hold(void)
{
	struct json json;

	usleep(client->hold_ms * 1000);
	json_open(&json);
	json_int(&json, "held", client->hold_ms);
	json_int(&json, "alive", count_alive());
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

int connect_crowd(const struct client *wanted)
{
	struct failure failure = { .error = "" };

	client = wanted;
	fds = calloc(client->count, sizeof(*fds));
	if (!become_user(client, &failure))
		misuse(failure.error);
	run_workers();
	print_counts();
	if (client->hold_ms)
		hold();
	return 0;
}
