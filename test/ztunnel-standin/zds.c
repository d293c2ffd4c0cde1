// SPDX-License-Identifier: Apache-2.0
/* The connection to the node agent, and what is due when. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "standin.h"
#include "zds.h"

#define MAX_BACKOFF_MS 15000
#define CONNECT_BACKOFF_MS 20
/* After a connection that takes no hello */
#define HELLO_BACKOFF_MS 5
#define RETRY_MS 5000
#define ERROR_SIZE 4096

/* -1: there is none */
static int connection = -1;
static int connect_backoff = CONNECT_BACKOFF_MS;
static int hello_backoff = HELLO_BACKOFF_MS;

/* Times in ms of CLOCK_MONOTONIC; NEVER is far away. */
#define NEVER INT64_MAX
static int64_t connect_at;
static int64_t retry_at = NEVER;
/* Nothing is read until the answer is sent. */
static int64_t answer_at = NEVER;
static char answer[ERROR_SIZE];

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Gives the time after a failure, and doubles the next one. */
static int64_t back_off(int *backoff)
{
	int64_t until = now_ms() + *backoff;

	*backoff = *backoff * 2 < MAX_BACKOFF_MS ? *backoff * 2 : MAX_BACKOFF_MS;
	return until;
}

static void disconnect(void)
{
	close(connection);
	connection = -1;
	connect_at = 0;
	retry_at = answer_at = NEVER;
	zds_end();
}

void zds_close(const char *reason)
{
	if (connection < 0)
		return;
	disconnect();
	zds_report("disconnected", NULL, reason);
}

static void try_connect(void)
{
	connection = zds_connect(config.zds);
	if (connection < 0) {
		connect_at = back_off(&connect_backoff);
		return;
	}
	connect_backoff = CONNECT_BACKOFF_MS;
	if (!zds_send_hello(connection)) {
		disconnect();
		connect_at = back_off(&hello_backoff);
		return;
	}
	zds_begin();
	zds_report("connected", NULL, "");
}

/* error "" is an ack. */
static void send_answer(const char *error)
{
	if (config.zds_mute)
		return;
	if (!zds_send_ack(connection, error))
		return zds_close(error_name(errno));
	if (*error)
		zds_report("nack", NULL, error);
}

static void answer_later(void)
{
	answer_at = now_ms() + config.zds_delay_ms;
}

static void nack_and_leave(const char *what, const char *error)
{
	snprintf(answer, sizeof(answer), "failure to %s message : %s", what, error);
	send_answer(answer);
}

static void serve(const struct zds_request *request, int netns)
{
	const char *error;

	switch (zds_apply(request, netns, &error)) {
	case ZDS_OK:
		*answer = '\0';
		return answer_later();
	case ZDS_START_FAILED:
		if (retry_at == NEVER)
			retry_at = now_ms() + RETRY_MS;
		snprintf(answer, sizeof(answer), "failure to start proxy : %s", error);
		return answer_later();
	case ZDS_PROTOCOL_ERROR:
		nack_and_leave("process", error);
		zds_report("protocol-error", NULL, error);
		exit(1);
	}
}

/* Exactly one netns with Add, and none with the others. NULL, or what is wrong. */
static const char *check_netns(const struct zds_request *request, int netns)
{
	if (request->kind == ZDS_ADD)
		return netns < 0 ? "No control message" : NULL;
	return netns < 0 ? NULL : "Unexpected control message";
}

static void take_request(void)
{
	uint8_t data[ZDS_MAX_PACKET];
	struct zds_request request;
	const char *why;
	int netns;
	ssize_t len = zds_receive(connection, data, &netns, &why);

	if (len > 0)
		why = zds_decode(&request, data, len);
	if (len > 0 && !why)
		why = check_netns(&request, netns);
	if (len > 0 && !why)
		return serve(&request, netns);
	if (netns >= 0)
		close(netns);
	if (why)
		nack_and_leave("read", why);
	zds_close(why ? why : "");
}

static void retry(void)
{
	retry_at = zds_retry() ? NEVER : now_ms() + RETRY_MS;
}

int zds_fd(void)
{
	return answer_at == NEVER ? connection : -1;
}

int zds_timeout_ms(void)
{
	int64_t due = connection < 0 ? connect_at : retry_at < answer_at ? retry_at : answer_at;
	int64_t left = due - now_ms();

	if (!config.zds || due == NEVER)
		return -1;
	return left > 0 ? left : 0;
}

void zds_run(bool is_readable)
{
	int64_t now = now_ms();

	if (connection < 0) {
		if (now >= connect_at)
			try_connect();
		return;
	}
	if (is_readable)
		take_request();
	if (now >= retry_at)
		retry();
	if (now >= answer_at) {
		answer_at = NEVER;
		send_answer(answer);
	}
	if (zds_is_ready())
		hello_backoff = HELLO_BACKOFF_MS;
}
