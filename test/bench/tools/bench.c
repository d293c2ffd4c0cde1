// SPDX-License-Identifier: Apache-2.0
#include "bench.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char usage[] = "usage: bench refuse HOST PORT [--count N] [--reuse]\n"
		     "       bench rate HOST PORT [--ms N]\n"
		     "       bench rtt HOST PORT [--ms N] [--size BYTES]\n"
		     "       bench bulk HOST PORT [--ms N]\n"
		     "       bench peername HOST PORT [--count N]\n"
		     "       bench query HOST PORT [--count N]\n"
		     "       bench serve PORT\n"
		     "       bench measure FILE [ARGUMENT]...\n";

static struct wanted wanted = { .count = 1000, .ms = 100, .size = 1 };

static const struct option_spec options[] = {
	NUMBER("count", &wanted.count),
	NUMBER("ms", &wanted.ms),
	NUMBER("size", &wanted.size),
	FLAG("reuse", &wanted.reuse),
	{ 0 },
};

static const struct {
	const char *name;
	void (*run)(const struct wanted *wanted);
} clients[] = {
	{ "refuse", refuse }, { "rate", rate },		{ "rtt", rtt },
	{ "bulk", bulk },     { "peername", peername }, { "query", query },
};

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, errno ? error_name(errno) : "end of stream");
	exit(1);
}

int dial(const union addr *to)
{
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, &to->sa, addr_len(to)))
		die("connect");
	set_int(fd, SOL_TCP, TCP_NODELAY, 1);
	return fd;
}

void close_hard(int fd)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

void round_trip(int fd, char *buffer, size_t size)
{
	errno = 0;
	if (!send_all(fd, buffer, size))
		die("send");
	if (recv(fd, buffer, size, MSG_WAITALL) != (ssize_t)size)
		die("recv");
}

void report(int64_t count, uint64_t ns)
{
	struct json json;

	json_open(&json);
	json_int(&json, "count", count);
	json_int(&json, "ns", ns);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static uint16_t parse_port(const char *text)
{
	uint16_t port;

	if (!port_parse(&port, text))
		misuse(text);
	return port;
}

static void run_client(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(clients) / sizeof(*clients); i++) {
		if (strcmp(argv[0], clients[i].name))
			continue;
		if (parse_options(options, argc, argv) != 2)
			misuse("HOST PORT");
		if (!addr_parse(&wanted.to, argv[1], parse_port(argv[2])))
			misuse(argv[1]);
		return clients[i].run(&wanted);
	}
	misuse("no such command");
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	raise_nofile();
	if (argc < 3)
		misuse("no command");
	if (!strcmp(argv[1], "serve"))
		serve(parse_port(argv[2]));
	if (!strcmp(argv[1], "measure"))
		measure(argv + 2);
	else
		run_client(argc - 1, argv + 1);
	return 0;
}
