// SPDX-License-Identifier: Apache-2.0
/* The applications of the tests: a client and a server in one program. */
#ifndef SOCK_H
#define SOCK_H

#include <sys/types.h>

#include "json.h"
#include "net.h"
#include "options.h"

#define DEFAULT_TIMEOUT_MS 3000

/* How to connect; 0, false and NULL: not asked for. */
struct client {
	union addr to;
	int timeout_ms;
	union addr bind;
	bool has_bind;
	bool reuseaddr;
	bool transparent;
	const char *device;
	int mark;
	/* -1: no change */
	int uid;
	int gid;
	/* Path of the netns whose socket it is */
	const char *netns;
	bool mptcp;
	bool v6_mapped;
	bool nonblock;
	bool fastopen;
	bool io_uring;
	bool disconnect;
	bool wait_stdin;
	/* The first thing to send: "\n", an HTTP request, or nothing */
	const char *hello;
	bool http;
	/* "ip:port" to ask the stand-in's 15008 for, before all else */
	const char *hbone;
	bool silent;
	bool no_read;
	const char *text;
	int hold_ms;
	int count;
};

/* Where and why a connection failed. error is "" when it did not. */
struct failure {
	const char *at;
	const char *error;
};

/* Remember the step that failed with errno. Gives false. */
bool fail(struct failure *failure, const char *at);

/* dial.c. Steps of a connection, for all ways to connect. */
int open_socket(const struct client *client, struct failure *failure);
bool dial(const struct client *client, int fd, struct failure *failure);
/* Read the server's line, or an HTTP response's body, into line (NUL terminated). */
bool read_reply(const struct client *client, int fd, char *line, size_t size,
		struct failure *failure);
/* Send text and read as much into echo (NUL terminated); with half_close until the end. */
bool exchange(int fd, const char *text, char *echo, size_t size, bool half_close,
	      struct failure *failure);
bool become_user(const struct client *client, struct failure *failure);

/* io-uring.c: IORING_OP_CONNECT. Returns 0 or an errno value. */
int connect_by_io_uring(int fd, const union addr *to, int timeout_ms);

/* crowd.c: many connections at once. */
int connect_crowd(const struct client *client);

/* Commands: argv without the program's name. Return the exit code. */
int serve(int argc, char **argv);
int connect_command(int argc, char **argv);
int dns(int argc, char **argv);
int raw(int argc, char **argv);

#endif
