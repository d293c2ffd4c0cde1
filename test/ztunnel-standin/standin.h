// SPDX-License-Identifier: Apache-2.0
/* A stand-in for ztunnel: like it in all that a redirector can notice, namely sockets, marks,
 * original destinations and sources; and, with --zds, in all that a node agent can notice. It has
 * no mTLS and no XDS.
 */
#ifndef STANDIN_H
#define STANDIN_H

#include <pthread.h>
#include <stdatomic.h>

#include "json.h"
#include "net.h"

#define OUTBOUND_PORT 15001
#define INBOUND_PORT 15006
#define HBONE_PORT 15008
#define DNS_PORT 15053
#define CONNECT_TIMEOUT_MS 10000

struct config {
	const char *name;
	/* SO_MARK of every socket */
	int mark;
	bool no_mark;
	/* One proxy for the node, in its own netns, as before Istio 1.21. */
	bool shared;
	bool ipv4_only;
	/* Its own addresses in shared mode, canonical: connections to them are refused. */
	union addr self[2];
	int self_count;
	/* Where a connection goes whose original destination nobody knows; else nowhere. */
	union addr upstream;
	bool has_upstream;
	/* Path of the node agent's socket; NULL: workloads come from stdin alone. */
	const char *zds;
	/* Faults for tests: when answers are sent, whether at all, and why each start fails. */
	int zds_delay_ms;
	bool zds_mute;
	const char *zds_nack;
	int home_netns;
	int log_fd;
};

extern struct config config;

enum mode {
	MODE_RUNNING,
	/* Listeners stay open, nothing is accepted. */
	MODE_STALLED,
	/* Accept what is queued, then close the listeners. */
	MODE_DRAINING,
};

struct workload;
struct conn;

struct listener {
	struct workload *workload;
	int fd;
	/* eventfd: look at mode and is_closing again */
	int wake;
	uint16_t port;
	pthread_t thread;
	atomic_bool is_closing;
	/* Take one connection or datagram. false: there was none. */
	bool (*take)(struct listener *listener);
	/* What a thread of its own does with a connection. */
	void (*handle)(struct conn *conn);
	struct listener *next;
};

/* A pod's netns with its listeners; or the stand-in's own in shared mode. */
struct workload {
	/* As given to add; "own" in shared mode; "net:[INODE]" when it came over ZDS */
	char *path;
	/* NULL: it did not come over ZDS */
	char *uid;
	int netns;
	bool is_withdrawn;
	/* Connections, and one for being in the list. */
	int refs;
	struct listener *listeners;
	struct conn *conns;
	struct workload *next;
};

/* Addresses are canonical. */
struct conn {
	struct workload *workload;
	uint16_t port;
	void (*handle)(struct conn *conn);
	int client;
	/* -1: not dialled */
	int upstream;
	union addr local;
	union addr peer;
	union addr original;
	/* Which call gave `original`; NULL: none did */
	const char *via;
	union addr dialled;
	bool is_dialled;
	/* The address that the upstream socket should come from. */
	union addr source;
	bool has_source;
	/* "" or what went wrong; it may have been dialled all the same */
	char error[128];
	struct conn *next;
	struct conn **link;
};

/* workload.c. Owns netns, also when it fails; error is 0 or an errno value. */
struct workload *workload_start(const char *path, const char *uid, int netns, int *error);
/* At once: connections end, too. */
void workload_stop(struct workload *workload);
/* By path. The error text is "" when they worked. */
const char *workload_add(const char *path);
const char *workload_del(const char *path);
void workload_set_mode(enum mode mode);
void workload_close_listeners(void);

/* listener.c. 0 or an errno value, and then some may have started. */
int listeners_start(struct workload *workload);
void listeners_wake(struct workload *workload);
void listeners_close(struct workload *workload);
extern atomic_int listener_mode;

/* conn.c. End the connections, and give up the reference that the list of workloads has. */
void conns_end(struct workload *workload);
bool take_connection(struct listener *listener);
/* false: the workload is withdrawn, and fd is closed. */
bool conn_set_upstream(struct conn *conn, int fd);
/* Wait until no connection is left or the time is over. */
void conns_await_end(int timeout_ms);

/* commands.c. A line of stdout; command NULL: none was given. */
void say(const char *event, const char *command, const char *error);
/* As ztunnel ends, for which it was told `command`. */
void drain(const char *command) __attribute__((noreturn));
/* A pod has /dev/null as its stdin, whose end means nothing. */
bool commands_are_given(void);
/* What there is on stdin, or else its end. */
void read_commands(void);

/* sockets.c */
int listen_tcp(const struct workload *workload, const union addr *addr);
int listen_udp(const struct workload *workload, const union addr *addr);
/* 0 or an errno value. */
int dial(struct conn *conn, const union addr *to, const union addr *source);
void find_original(struct conn *conn);
void set_keepalive(int fd);

/* proxy.c */
void serve_outbound(struct conn *conn);
void serve_inbound(struct conn *conn);
void serve_hbone(struct conn *conn);

/* relay.c: copy both ways until both have ended; closes neither. */
void relay(int a, int b);

/* dns.c */
void serve_dns(struct conn *conn);
bool take_dns_query(struct listener *listener);

#endif
