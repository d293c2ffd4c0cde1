// SPDX-License-Identifier: Apache-2.0
/* The client of ZDS, the protocol between a node agent and ztunnel: SOCK_SEQPACKET, one protobuf
 * message per packet, the netns of an AddWorkload as SCM_RIGHTS. One request is answered at a time.
 */
#ifndef ZDS_H
#define ZDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What ztunnel reads; its requests are no longer. */
#define ZDS_MAX_PACKET 1024

enum zds_kind {
	ZDS_NONE,
	ZDS_ADD,
	ZDS_DEL,
	ZDS_SNAPSHOT_SENT,
	ZDS_KEEP,
};

/* A WorkloadRequest. Absent strings are "", and one that holds a NUL ends there. */
struct zds_request {
	enum zds_kind kind;
	char uid[ZDS_MAX_PACKET + 1];
	bool has_info;
	char name[ZDS_MAX_PACKET + 1];
	char namespace[ZDS_MAX_PACKET + 1];
	char service_account[ZDS_MAX_PACKET + 1];
};

/* zds-decode.c. As prost decodes: NULL, or why it refuses. */
const char *zds_decode(struct zds_request *request, const uint8_t *data, size_t len);

/* zds-packet.c. -1 and errno. */
int zds_connect(const char *path);
/* One packet of at most ZDS_MAX_PACKET bytes; netns is -1 or the caller's. Returns its length, 0
 * for the end; -1 and why it cannot be read. */
ssize_t zds_receive(int fd, uint8_t *data, int *netns, const char **why);
/* false: the agent is gone. */
bool zds_send_hello(int fd);
/* WorkloadResponse; error "" is an ack. */
bool zds_send_ack(int fd, const char *error);

/* zds-state.c: workloads by uid. */
enum zds_outcome {
	ZDS_OK,
	/* Tried again by zds_retry() */
	ZDS_START_FAILED,
	/* ztunnel ends */
	ZDS_PROTOCOL_ERROR,
};

/* A connection begins: its snapshot is to come. Proxies keep running. */
void zds_begin(void);
void zds_end(void);
/* Owns netns, -1 for none. error: "" or why it failed. */
enum zds_outcome zds_apply(const struct zds_request *request, int netns, const char **error);
/* Start again what could not be started. false: some are left. */
bool zds_retry(void);
/* Connected, snapshot received, and every proxy runs. */
bool zds_is_ready(void);

/* What a report is about; "" and 0 are unknown. */
struct zds_subject {
	const char *uid;
	const char *name;
	const char *namespace;
	const char *service_account;
	ino_t netns;
};

/* A line on stdout. subject NULL: the connection. */
void zds_report(const char *what, const struct zds_subject *subject, const char *error);

/* zds.c: the connection. For the main loop: what to poll for POLLIN, -1 for nothing, and how long,
 * -1 for ever. */
int zds_fd(void);
int zds_timeout_ms(void);
void zds_run(bool is_readable);
void zds_close(const char *reason);

#endif
