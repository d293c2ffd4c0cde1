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
	/* tricks.c. Path of the netns, and the cgroup, of the process that passes the socket on */
	const char *passed_from;
	const char *passed_cgroup;
	/* The socket comes from accept() */
	bool recycled;
	bool freebind;
	/* IPv4 address that the packets are to go to first */
	const char *first_hop;
	bool mptcp;
	bool v6_mapped;
	bool nonblock;
	bool fastopen;
	bool fastopen_connect;
	bool io_uring;
	/* In a worker thread of the kernel */
	bool io_uring_async;
	bool disconnect;
	bool wait_stdin;
	/* The first thing to send: "\n", an HTTP request, or nothing */
	const char *hello;
	bool http;
	/* "ip:port" to ask the stand-in's 15008 for, before all else */
	const char *hbone;
	bool silent;
	bool no_read;
	/* Of many connections: what every reply has to contain; without that it is EBADMSG */
	const char *expect;
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
/* Dial, and read the reply unless no_read; the reply is only checked. */
bool talk(const struct client *client, int fd, struct failure *failure);
/* Send text and read as much into echo (NUL terminated); with half_close until the end. */
bool exchange(int fd, const char *text, char *echo, size_t size, bool half_close,
	      struct failure *failure);
bool become_user(const struct client *client, struct failure *failure);

/* tricks.c. A socket, or -1 and errno. */
int receive_passed_socket(const struct client *client);
int recycled_socket(int family);
int set_first_hop(int fd, const char *ip);

/* io-uring.c. Returns 0 or an errno value. */
int connect_by_io_uring(int fd, const union addr *to, bool async, int timeout_ms);
int send_by_io_uring(int fd, const struct msghdr *message, int timeout_ms);

/* crowd.c: many connections at once. */
int connect_crowd(const struct client *client);

/* Commands: argv without the program's name. Return the exit code. */
int serve(int argc, char **argv);
int connect_command(int argc, char **argv);
int dns(int argc, char **argv);
int raw(int argc, char **argv);
int flood(int argc, char **argv);
int churn(int argc, char **argv);
int redial(int argc, char **argv);
int sink(int argc, char **argv);
int syn_flood(int argc, char **argv);
int frame(int argc, char **argv);
int shortcuts(int argc, char **argv);
int sniff(int argc, char **argv);
int bpf_calls(int argc, char **argv);

#endif
