// SPDX-License-Identifier: Apache-2.0
/* sock udp: a resolver's socket, which asks one or several servers. One line for each reply, then
 * one that counts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sock.h"

#define MAX_SERVERS 16
#define HEADER_SIZE 12
#define MAX_MESSAGE 1024
#define FIRST_ID 100
#define FLAG_TRUNCATED 0x02

static struct {
	union addr servers[MAX_SERVERS];
	int count;
	const char *name;
	bool aaaa;
	bool connected;
	bool mmsg;
	bool io_uring;
	bool tcp;
	bool tcp_if_truncated;
	/* Connect to the first server, and then disconnect, before all else */
	bool disconnect;
	const char *device;
	union addr bind;
	bool has_bind;
	int timeout_ms;
} query = { .name = "example.test", .timeout_ms = DEFAULT_TIMEOUT_MS };

struct message {
	/* Two bytes of length go before it over TCP. */
	uint8_t prefix[2];
	uint8_t bytes[MAX_MESSAGE];
	size_t len;
};

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static uint16_t get16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static uint8_t *put_name(uint8_t *at, const char *name)
{
	while (*name) {
		size_t len = strcspn(name, ".");

		*at++ = len;
		memcpy(at, name, len);
		at += len;
		name += len + (name[len] == '.');
	}
	*at++ = 0;
	return at;
}

/* The id tells which server was asked. */
static void make_query(struct message *message, int server)
{
	uint8_t *at = message->bytes;

	memset(at, 0, HEADER_SIZE);
	put16(at, FIRST_ID + server);
	put16(at + 2, 0x0100);
	put16(at + 4, 1);
	at = put_name(at + HEADER_SIZE, query.name);
	put16(at, query.aaaa ? 28 : 1);
	put16(at + 2, 1);
	message->len = at + 4 - message->bytes;
	put16(message->prefix, message->len);
}

/* The address of a reply with one answer, which is at its end. false: none. */
static bool find_answer(const struct message *message, char *text, size_t size)
{
	size_t wanted = query.aaaa ? 16 : 4;

	if (message->len < HEADER_SIZE + 12 + wanted || !get16(message->bytes + 6))
		return false;
	return inet_ntop(query.aaaa ? AF_INET6 : AF_INET, message->bytes + message->len - wanted,
			 text, size);
}

static void print_reply(int fd, const struct message *reply, const union addr *from)
{
	char text[ADDR_TEXT_SIZE];
	union addr peer = { 0 };
	socklen_t len = sizeof(peer);
	struct json json;

	json_open(&json);
	json_str(&json, "from", addr_text(from, text));
	json_str(&json, "answer", find_answer(reply, text, sizeof(text)) ? text : NULL);
	json_int(&json, "id", get16(reply->bytes));
	json_str(&json, "asked",
		 addr_text(&query.servers[(get16(reply->bytes) - FIRST_ID) % MAX_SERVERS], text));
	json_int(&json, "rcode", reply->bytes[3] & 0xf);
	if (!getpeername(fd, &peer.sa, &len))
		json_str(&json, "peer", addr_text(&peer, text));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static int finish(int replies, const char *error, const char *at)
{
	struct json json;

	json_open(&json);
	json_int(&json, "replies", replies);
	json_str(&json, "error", error);
	json_str(&json, "at", at);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}

static int failed(const char *at, int replies)
{
	return finish(replies, error_name(errno), at);
}

static bool send_query(int fd, const struct msghdr *query_message)
{
	if (!query.io_uring)
		return sendmsg(fd, query_message, 0) >= 0;
	errno = send_by_io_uring(fd, query_message, query.timeout_ms);
	return !errno;
}

static bool send_one_by_one(int fd)
{
	for (int i = 0; i < query.count; i++) {
		union addr *to = query.connected ? NULL : &query.servers[i];
		struct message message;
		struct iovec part = { .iov_base = message.bytes };
		struct msghdr header = {
			.msg_name = to,
			.msg_namelen = to ? addr_len(to) : 0,
			.msg_iov = &part,
			.msg_iovlen = 1,
		};

		make_query(&message, i);
		part.iov_len = message.len;
		if (!send_query(fd, &header))
			return false;
	}
	return true;
}

/* All with one sendmmsg(). */
static bool send_together(int fd)
{
	static struct message messages[MAX_SERVERS];
	struct iovec parts[MAX_SERVERS];
	struct mmsghdr batch[MAX_SERVERS] = { 0 };

	for (int i = 0; i < query.count; i++) {
		union addr *to = query.connected ? NULL : &query.servers[i];

		make_query(&messages[i], i);
		parts[i] = (struct iovec){ messages[i].bytes, messages[i].len };
		batch[i].msg_hdr = (struct msghdr){
			.msg_name = to,
			.msg_namelen = to ? addr_len(to) : 0,
			.msg_iov = &parts[i],
			.msg_iovlen = 1,
		};
	}
	return sendmmsg(fd, batch, query.count, 0) == query.count;
}

static int open_query_socket(int type)
{
	int fd = socket(query.servers[0].sa.sa_family, type | SOCK_CLOEXEC, 0);
	const char *device = query.device;

	if (fd < 0)
		return -1;
	if (device && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)))
		goto failed;
	if (query.has_bind && bind(fd, &query.bind.sa, addr_len(&query.bind)))
		goto failed;
	return fd;
failed:
	close(fd);
	return -1;
}

static bool read_all(int fd, void *buffer, size_t len)
{
	bool is_ready = wait_for(fd, POLLIN, query.timeout_ms);

	errno = is_ready ? ECONNRESET : ETIMEDOUT;
	return is_ready && recv(fd, buffer, len, MSG_WAITALL) == (ssize_t)len;
}

/* The first server alone. */
static int ask_by_tcp(void)
{
	struct message message;
	union addr peer = { 0 };
	socklen_t len = sizeof(peer);
	int fd = open_query_socket(SOCK_STREAM);

	if (fd < 0)
		return failed("socket", 0);
	errno = connect_within(fd, &query.servers[0], query.timeout_ms);
	if (errno)
		return failed("connect", 0);
	set_nonblocking(fd, false);
	make_query(&message, 0);
	if (!send_all(fd, &message, message.len + 2))
		return failed("send", 0);
	if (!read_all(fd, message.prefix, 2))
		return failed("read", 0);
	message.len = get16(message.prefix);
	if (message.len > MAX_MESSAGE || !read_all(fd, message.bytes, message.len))
		return failed("read", 0);
	getpeername(fd, &peer.sa, &len);
	print_reply(fd, &message, &peer);
	return finish(1, "", "read");
}

/* One reply for each server; several servers' replies may come in any order. */
static int receive_replies(int fd)
{
	bool is_truncated = false;

	for (int replies = 0; replies < query.count; replies++) {
		struct message reply;
		union addr from = { 0 };
		socklen_t len = sizeof(from);
		ssize_t received;

		if (!wait_for(fd, POLLIN, query.timeout_ms))
			return finish(replies, "ETIMEDOUT", "read");
		received = recvfrom(fd, reply.bytes, sizeof(reply.bytes), 0, &from.sa, &len);
		if (received < HEADER_SIZE)
			return failed("read", replies);
		reply.len = received;
		is_truncated |= reply.bytes[2] & FLAG_TRUNCATED;
		print_reply(fd, &reply, &from);
	}
	if (query.tcp_if_truncated && is_truncated)
		return ask_by_tcp();
	return finish(query.count, "", "read");
}

static bool connect_to(int fd, const union addr *to)
{
	return !connect(fd, &to->sa, addr_len(to));
}

static bool connect_and_disconnect(int fd, const union addr *to)
{
	struct sockaddr unspecified = { .sa_family = AF_UNSPEC };

	return connect_to(fd, to) && !connect(fd, &unspecified, sizeof(unspecified));
}

static int ask_by_udp(void)
{
	const union addr *first = &query.servers[0];
	int fd = open_query_socket(SOCK_DGRAM);

	if (fd < 0)
		return failed("socket", 0);
	if (query.disconnect && !connect_and_disconnect(fd, first))
		return failed("disconnect", 0);
	if (query.connected && !connect_to(fd, first))
		return failed("connect", 0);
	if (!(query.mmsg ? send_together(fd) : send_one_by_one(fd)))
		return failed("send", 0);
	return receive_replies(fd);
}

static void set_bind(const char *text)
{
	query.bind = parse_endpoint(text, 0);
	query.has_bind = true;
}

static const struct option_spec options[] = {
	TEXT("name", &query.name),
	FLAG("aaaa", &query.aaaa),
	FLAG("connected", &query.connected),
	FLAG("disconnect", &query.disconnect),
	FLAG("mmsg", &query.mmsg),
	FLAG("io-uring", &query.io_uring),
	FLAG("tcp", &query.tcp),
	FLAG("tcp-if-truncated", &query.tcp_if_truncated),
	TEXT("device", &query.device),
	CALL("bind", set_bind),
	NUMBER("timeout", &query.timeout_ms),
	{ 0 },
};

/* A number alone is the port of the server before it. */
static void add_server(const char *text)
{
	uint16_t port;

	if (query.count && port_parse(&port, text)) {
		addr_set_port(&query.servers[query.count - 1], port);
		return;
	}
	if (query.count == MAX_SERVERS)
		misuse("too many servers");
	query.servers[query.count++] = parse_endpoint(text, 53);
}

int dns(int argc, char **argv)
{
	int servers = parse_options(options, argc, argv);

	for (int i = 1; i <= servers; i++)
		add_server(argv[i]);
	if (!query.count || strlen(query.name) > 250)
		misuse("wants HOST:PORT, and a name of at most 250 bytes");
	return query.tcp ? ask_by_tcp() : ask_by_udp();
}
