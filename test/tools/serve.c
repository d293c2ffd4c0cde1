// SPDX-License-Identifier: Apache-2.0
/* sock serve: tells every client, and stdout, what it sees of the connection; then echoes. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"

#define MAX_PORTS 64
#define BACKLOG 4096

static struct {
	const char *name;
	union addr addr;
	bool v6only;
	bool reuseport;
	bool mptcp;
	uint16_t ports[MAX_PORTS];
	int port_count;
	/* How long a client may take to show that it speaks HTTP */
	int wait_ms;
} server = { .name = "sock", .wait_ms = 150 };

struct accepted {
	int fd;
	union addr peer;
};

static void die(const char *what)
{
	fprintf(stderr, "sock: %s: %s\n", what, error_name(errno));
	exit(1);
}

/* The form in which the kernel gave the address: the text shows the canonical one. */
static const char *family_name(const union addr *addr)
{
	if (addr_is_mapped(addr))
		return "v4-mapped";
	return addr->sa.sa_family == AF_INET6 ? "inet6" : "inet";
}

static void describe(const struct accepted *accepted, struct json *json)
{
	char text[ADDR_TEXT_SIZE];
	union addr local = { 0 }, peer = { 0 };
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);

	getsockname(accepted->fd, &local.sa, &local_len);
	json_open(json);
	json_str(json, "server", server.name);
	json_str(json, "local", addr_text(&local, text));
	json_str(json, "peer", addr_text(&accepted->peer, text));
	if (getpeername(accepted->fd, &peer.sa, &peer_len))
		json_str(json, "getpeername", NULL);
	else
		json_str(json, "getpeername", addr_text(&peer, text));
	json_str(json, "family", family_name(&accepted->peer));
	json_close(json);
}

static void answer_http(int fd, const struct json *json)
{
	char head[128];
	int len = snprintf(head, sizeof(head),
			   "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
			   "Content-Length: %zu\r\n\r\n",
			   json->len);

	send_all(fd, head, len);
	send_all(fd, json->text, json->len);
	shutdown(fd, SHUT_WR);
}

/* A client's first "\n" only says that it is no HTTP client. */
static void echo(int fd, char *buffer, size_t size, ssize_t len)
{
	ssize_t skipped = len > 0 && buffer[0] == '\n';

	while (len > 0 && send_all(fd, buffer + skipped, len - skipped)) {
		len = recv(fd, buffer, size, 0);
		skipped = 0;
	}
}

static void converse(const struct accepted *accepted, const struct json *json)
{
	char buffer[8192];
	ssize_t len = 0;
	bool has_spoken = wait_for(accepted->fd, POLLIN, server.wait_ms);

	if (has_spoken)
		len = recv(accepted->fd, buffer, sizeof(buffer), 0);
	if (len >= 4 && !memcmp(buffer, "GET ", 4))
		return answer_http(accepted->fd, json);
	if (!send_all(accepted->fd, json->text, json->len))
		return;
	if (!has_spoken)
		len = recv(accepted->fd, buffer, sizeof(buffer), 0);
	echo(accepted->fd, buffer, sizeof(buffer), len);
}

static void *serve_client(void *arg)
{
	struct accepted *accepted = arg;
	struct json json;

	describe(accepted, &json);
	json_write(&json, STDOUT_FILENO);
	converse(accepted, &json);
	close(accepted->fd);
	free(accepted);
	return NULL;
}

static int listen_on(uint16_t port)
{
	int fd;

	addr_set_port(&server.addr, port);
	fd = socket(server.addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC,
		    server.mptcp ? IPPROTO_MPTCP : 0);
	if (fd < 0)
		die("socket");
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, server.reuseport);
	if (server.addr.sa.sa_family == AF_INET6)
		set_int(fd, SOL_IPV6, IPV6_V6ONLY, server.v6only);
	if (bind(fd, &server.addr.sa, addr_len(&server.addr)))
		die("bind");
	if (listen(fd, BACKLOG))
		die("listen");
	return fd;
}

static void say_listening(int fd)
{
	union addr local;
	socklen_t len = sizeof(local);
	struct json json;

	getsockname(fd, &local.sa, &len);
	json_open(&json);
	json_str(&json, "event", "listening");
	json_str(&json, "server", server.name);
	json_int(&json, "port", addr_port(&local));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static void accept_one(int listener)
{
	struct accepted *accepted = calloc(1, sizeof(*accepted));
	socklen_t len = sizeof(accepted->peer);

	accepted->fd = accept4(listener, &accepted->peer.sa, &len, SOCK_CLOEXEC);
	if (accepted->fd >= 0 && spawn_detached(serve_client, accepted))
		return;
	if (accepted->fd >= 0)
		close(accepted->fd);
	free(accepted);
	/* Out of file descriptors or threads: do not spin. */
	usleep(10000);
}

static void add_port(const char *text)
{
	if (server.port_count == MAX_PORTS || !port_parse(&server.ports[server.port_count++], text))
		misuse("not a port, or too many");
}

static void set_bind(const char *text)
{
	server.addr = parse_endpoint(text, 0);
}

static const struct option_spec options[] = {
	CALL("port", add_port),
	CALL("bind", set_bind),
	TEXT("name", &server.name),
	NUMBER("wait", &server.wait_ms),
	FLAG("v6only", &server.v6only),
	FLAG("reuseport", &server.reuseport),
	FLAG("tcp-listen-mptcp", &server.mptcp),
	{ 0 },
};

int serve(int argc, char **argv)
{
	struct pollfd waited[MAX_PORTS] = { 0 };

	server.addr = parse_endpoint("::", 0);
	if (parse_options(options, argc, argv))
		misuse(argv[1]);
	if (!server.port_count)
		add_port("0");
	for (int i = 0; i < server.port_count; i++) {
		waited[i] = (struct pollfd){ .fd = listen_on(server.ports[i]), .events = POLLIN };
		say_listening(waited[i].fd);
	}
	for (;;) {
		poll(waited, server.port_count, -1);
		for (int i = 0; i < server.port_count; i++) {
			if (waited[i].revents)
				accept_one(waited[i].fd);
		}
	}
}
