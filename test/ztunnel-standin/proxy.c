// SPDX-License-Identifier: Apache-2.0
/* The three TCP listeners. Each connection is reported once: when it was dialled or refused. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "standin.h"

static bool is_illegal_port(uint16_t port)
{
	return port == OUTBOUND_PORT || port == INBOUND_PORT || port == HBONE_PORT;
}

static bool is_self(const union addr *addr)
{
	for (int i = 0; i < config.self_count; i++) {
		if (addr_same_ip(&config.self[i], addr))
			return true;
	}
	return false;
}

static void put_addr(struct json *json, const char *key, const union addr *addr)
{
	char text[ADDR_TEXT_SIZE];

	json_str(json, key, addr ? addr_text(addr, text) : NULL);
}

/* The address alone: the port is the kernel's choice. */
static void put_source(struct json *json, const struct conn *conn)
{
	char text[ADDR_TEXT_SIZE];

	json_str(json, "source", conn->has_source ? addr_ip_text(&conn->source, text) : NULL);
}

static void report(const struct conn *conn)
{
	struct json json;

	json_open(&json);
	json_str(&json, "event", "connection");
	json_str(&json, "standin", config.name);
	json_str(&json, "netns", conn->workload->path);
	json_str(&json, "workload", conn->workload->uid);
	json_int(&json, "listener", conn->port);
	put_addr(&json, "local", &conn->local);
	put_addr(&json, "peer", &conn->peer);
	put_addr(&json, "original", &conn->original);
	json_str(&json, "via_sockopt", conn->via);
	put_addr(&json, "dialled", conn->is_dialled ? &conn->dialled : NULL);
	put_source(&json, conn);
	json_str(&json, "error", conn->error);
	json_close(&json);
	json_write(&json, config.log_fd);
}

static void refuse(struct conn *conn, const char *reason)
{
	snprintf(conn->error, sizeof(conn->error), "%s", reason);
	report(conn);
}

/* Dial and report. */
static bool open_upstream(struct conn *conn, const union addr *to, const union addr *source)
{
	int error = dial(conn, to, source);

	if (error)
		snprintf(conn->error, sizeof(conn->error), "connect: %s", error_name(error));
	report(conn);
	return !error;
}

void serve_outbound(struct conn *conn)
{
	find_original(conn);
	if (addr_is_loopback(&conn->original) && is_illegal_port(addr_port(&conn->original)))
		return refuse(conn, "illegal port");
	if (is_self(&conn->original))
		return refuse(conn, "self call");
	/* The source is spoofed by the shared proxy alone. */
	if (open_upstream(conn, &conn->original, config.shared ? &conn->peer : NULL))
		relay(conn->client, conn->upstream);
}

void serve_inbound(struct conn *conn)
{
	find_original(conn);
	set_keepalive(conn->client);
	if (is_illegal_port(addr_port(&conn->original)))
		return refuse(conn, "illegal port");
	if (open_upstream(conn, &conn->original, &conn->peer))
		relay(conn->client, conn->upstream);
}

static void find_hbone_original(struct conn *conn)
{
	/* The shared proxy of 1.18 asked for the original destination here, too. */
	if (config.shared)
		return find_original(conn);
	conn->via = "getsockname";
	conn->original = conn->local;
}

/* Up to the line feed, byte by byte: what follows is the peer's payload. */
static bool read_line(int fd, char *line, size_t size)
{
	for (size_t len = 0; len < size && wait_for(fd, POLLIN, CONNECT_TIMEOUT_MS); len++) {
		if (read(fd, line + len, 1) != 1)
			return false;
		if (line[len] == '\n') {
			line[len] = '\0';
			return true;
		}
	}
	return false;
}

static bool read_connect(int fd, union addr *to)
{
	static const char verb[] = "CONNECT ";
	char line[128];

	return read_line(fd, line, sizeof(line)) && !strncmp(line, verb, strlen(verb)) &&
	       addr_parse_endpoint(to, line + strlen(verb), 0) && addr_port(to);
}

static void answer(int fd, const char *status)
{
	send_all(fd, status, strlen(status));
}

/* Plain text in place of HTTP/2 over mTLS: "CONNECT ip:port", answered by "200". */
void serve_hbone(struct conn *conn)
{
	union addr to;

	find_hbone_original(conn);
	if (!read_connect(conn->client, &to)) {
		answer(conn->client, "400 BadRequest\n");
		return refuse(conn, "no CONNECT line");
	}
	if (!addr_same_ip(&to, &conn->original)) {
		answer(conn->client, "400 IPMismatch\n");
		return refuse(conn, "ip mismatch");
	}
	if (is_illegal_port(addr_port(&to))) {
		answer(conn->client, "400 IllegalPort\n");
		return refuse(conn, "illegal port");
	}
	if (!open_upstream(conn, &to, &conn->peer))
		return answer(conn->client, "503 Unavailable\n");
	answer(conn->client, "200\n");
	relay(conn->client, conn->upstream);
}
