// SPDX-License-Identifier: Apache-2.0
/* sock connect --count: many connections, open at the same time, counted by how they ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"

#define WORKERS 64
#define MAX_ERRORS 16

/* Names are constants of the program or of libc. */
struct tally {
	const char *name;
	int count;
};

static const struct client *client;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tally errors[MAX_ERRORS];
/* -1: not connected */
static int *fds;

static void count_error(const char *name)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_ERRORS; i++) {
		if (errors[i].name && strcmp(errors[i].name, name))
			continue;
		errors[i].name = name;
		errors[i].count++;
		break;
	}
	pthread_mutex_unlock(&lock);
}

static bool talk(int fd, struct failure *failure)
{
	char line[2048];

	if (!dial(client, fd, failure))
		return false;
	return client->no_read || read_reply(client, fd, line, sizeof(line), failure);
}

static int connect_counted(void)
{
	struct failure failure = { .error = "" };
	int fd = open_socket(client, &failure);

	if (fd >= 0 && talk(fd, &failure))
		return fd;
	count_error(failure.error);
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
	struct json counts, by_name;

	json_open(&by_name);
	for (int i = 0; i < MAX_ERRORS && errors[i].name; i++)
		json_int(&by_name, errors[i].name, errors[i].count);
	json_close(&by_name);
	by_name.text[by_name.len - 1] = '\0';
	json_open(&counts);
	json_int(&counts, "count", client->count);
	json_int(&counts, "ok", count_open());
	json_raw(&counts, "errors", by_name.text);
	json_close(&counts);
	json_write(&counts, STDOUT_FILENO);
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
