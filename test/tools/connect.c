// SPDX-License-Identifier: Apache-2.0
/* sock connect: one connection, and what it was like. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sock.h"

#define MAX_TEXT 4096

static const char http_request[] = "GET / HTTP/1.0\r\n\r\n";

struct outcome {
	struct failure failure;
	union addr local;
	union addr peer;
	char reply[2048];
	char echo[MAX_TEXT + 64];
	bool has_echo;
	/* Until the connection was there */
	double ms;
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void put_addr(struct json *json, const char *key, const union addr *addr)
{
	char text[ADDR_TEXT_SIZE];

	json_str(json, key, addr->sa.sa_family ? addr_text(addr, text) : NULL);
}

/* The server's line is embedded when it is an object. */
static void put_reply(struct json *json, const char *line)
{
	bool is_object = line[0] == '{' && line[strlen(line) - 1] == '}';

	json_raw(json, "reply", is_object ? line : NULL);
	if (!is_object)
		json_str(json, "text", line);
}

static void print_outcome(const struct outcome *outcome)
{
	const struct failure *failure = &outcome->failure;
	struct json json;

	json_open(&json);
	json_bool(&json, "ok", !*failure->error);
	if (*failure->error) {
		json_str(&json, "error", failure->error);
		json_str(&json, "at", failure->at);
	}
	put_addr(&json, "local", &outcome->local);
	put_addr(&json, "peer", &outcome->peer);
	put_reply(&json, outcome->reply);
	if (outcome->has_echo)
		json_str(&json, "echo", outcome->echo);
	json_int(&json, "ms", outcome->ms + 0.5);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static void await_stdin(void)
{
	char line[64];

	puts("{\"ready\":true}");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		exit(0);
}

static void read_names(struct outcome *outcome, int fd)
{
	socklen_t local_len = sizeof(outcome->local), peer_len = sizeof(outcome->peer);

	getsockname(fd, &outcome->local.sa, &local_len);
	getpeername(fd, &outcome->peer.sa, &peer_len);
}

static bool send_text(const struct client *client, int fd, struct outcome *outcome)
{
	outcome->has_echo = true;
	return exchange(fd, client->text, outcome->echo, sizeof(outcome->echo), !client->hold_ms,
			&outcome->failure);
}

static bool run(const struct client *client, int fd, struct outcome *outcome)
{
	double start = now_ms();

	if (!dial(client, fd, &outcome->failure))
		return false;
	outcome->ms = now_ms() - start;
	read_names(outcome, fd);
	if (client->no_read)
		return true;
	if (!read_reply(client, fd, outcome->reply, sizeof(outcome->reply), &outcome->failure))
		return false;
	return !client->text || send_text(client, fd, outcome);
}

/* Keep it open; then say whether it still works, on a second line. */
static void hold(const struct client *client, int fd)
{
	static const char question[] = "still there?";
	struct failure failure = { .error = "" };
	char echo[64];
	struct json json;

	usleep(client->hold_ms * 1000);
	exchange(fd, question, echo, sizeof(echo), false, &failure);
	json_open(&json);
	json_int(&json, "held", client->hold_ms);
	json_bool(&json, "alive", !strcmp(echo, question));
	json_str(&json, "error", failure.error);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static int connect_one(const struct client *client)
{
	struct outcome outcome = { .failure.error = "" };
	int fd;
	bool ok = false;

	fd = become_user(client, &outcome.failure) ? open_socket(client, &outcome.failure) : -1;
	if (fd >= 0 && client->wait_stdin)
		await_stdin();
	if (fd >= 0)
		ok = run(client, fd, &outcome);
	print_outcome(&outcome);
	if (ok && client->hold_ms)
		hold(client, fd);
	return 0;
}

static struct client client = {
	.timeout_ms = DEFAULT_TIMEOUT_MS,
	.uid = -1,
	.gid = -1,
	.hello = "\n",
	.count = 1,
};

static void set_bind(const char *text)
{
	client.bind = parse_endpoint(text, 0);
	client.has_bind = true;
}

static const struct option_spec options[] = {
	NUMBER("timeout", &client.timeout_ms),
	FLAG("http", &client.http),
	FLAG("silent", &client.silent),
	TEXT("hbone", &client.hbone),
	FLAG("no-read", &client.no_read),
	TEXT("send", &client.text),
	NUMBER("hold", &client.hold_ms),
	NUMBER("count", &client.count),
	TEXT("expect", &client.expect),
	CALL("bind", set_bind),
	FLAG("reuseaddr", &client.reuseaddr),
	FLAG("transparent", &client.transparent),
	TEXT("device", &client.device),
	NUMBER("mark", &client.mark),
	NUMBER("uid", &client.uid),
	NUMBER("gid", &client.gid),
	TEXT("netns", &client.netns),
	FLAG("mptcp", &client.mptcp),
	FLAG("v6-mapped", &client.v6_mapped),
	FLAG("nonblock", &client.nonblock),
	FLAG("fastopen", &client.fastopen),
	FLAG("fastopen-connect", &client.fastopen_connect),
	FLAG("io-uring", &client.io_uring),
	FLAG("io-uring-async", &client.io_uring_async),
	FLAG("freebind", &client.freebind),
	TEXT("first-hop", &client.first_hop),
	FLAG("recycled", &client.recycled),
	TEXT("passed-from", &client.passed_from),
	TEXT("passed-cgroup", &client.passed_cgroup),
	FLAG("disconnect", &client.disconnect),
	FLAG("wait-stdin", &client.wait_stdin),
	{ 0 },
};

static void derive(void)
{
	if (client.v6_mapped) {
		addr_map(&client.to);
		if (client.has_bind)
			addr_map(&client.bind);
	}
	if (client.http)
		client.hello = http_request;
	if (client.silent)
		client.hello = "";
	if (client.hbone && (client.fastopen || strlen(client.hbone) >= ADDR_TEXT_SIZE))
		misuse("--hbone");
	if (client.text && strlen(client.text) > MAX_TEXT)
		misuse("--send: text too long");
}

int connect_command(int argc, char **argv)
{
	uint16_t port;

	if (parse_options(options, argc, argv) != 2 || !port_parse(&port, argv[2]))
		misuse("connect wants HOST PORT");
	if (!addr_parse(&client.to, argv[1], port))
		misuse(argv[1]);
	derive();
	return client.count > 1 ? connect_crowd(&client) : connect_one(&client);
}
