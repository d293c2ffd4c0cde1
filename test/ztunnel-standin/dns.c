// SPDX-License-Identifier: Apache-2.0
/* A DNS server that knows every name: A 192.0.2.53, AAAA 2001:db8::53; and none that begins with
 * "nx.". What it says over UDP about a name that begins with "tc." is truncated.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "standin.h"

#define HEADER_SIZE 12
#define MAX_MESSAGE 512
#define TTL_S 5
#define TYPE_A 1
#define TYPE_AAAA 28
#define FLAGS_ANSWER 0x8180
#define FLAG_TRUNCATED 0x0200
#define RCODE_NXDOMAIN 3
#define QUESTION_POINTER 0xc00c

struct question {
	/* Without the dot at its end */
	char name[256];
	uint16_t type;
	/* Where the question ends in the message */
	size_t end;
};

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static bool parse_question(const uint8_t *message, size_t len, struct question *question)
{
	size_t at = HEADER_SIZE, name_len = 0;

	while (at < len && message[at]) {
		uint8_t label = message[at++];

		if (label > 63 || at + label >= len ||
		    name_len + label + 1 >= sizeof(question->name))
			return false;
		memcpy(question->name + name_len, message + at, label);
		name_len += label;
		question->name[name_len++] = '.';
		at += label;
	}
	if (at + 5 > len)
		return false;
	question->name[name_len ? name_len - 1 : 0] = '\0';
	question->type = message[at + 1] << 8 | message[at + 2];
	question->end = at + 5;
	return true;
}

/* Returns the size of the address, 0 when the type has none. */
static size_t find_address(const struct question *question, uint8_t *address)
{
	if (question->type == TYPE_A)
		return inet_pton(AF_INET, "192.0.2.53", address) * 4;
	if (question->type == TYPE_AAAA)
		return inet_pton(AF_INET6, "2001:db8::53", address) * 16;
	return 0;
}

static size_t put_record(uint8_t *at, const struct question *question)
{
	size_t size = find_address(question, at + HEADER_SIZE);

	if (!size)
		return 0;
	put16(at, QUESTION_POINTER);
	put16(at + 2, question->type);
	put16(at + 4, 1);
	put16(at + 6, 0);
	put16(at + 8, TTL_S);
	put16(at + 10, size);
	return HEADER_SIZE + size;
}

/* Turn the query into its reply. Returns the reply's size, 0 when it is no query. */
static size_t make_reply(uint8_t message[MAX_MESSAGE + 64], size_t len, struct question *question)
{
	bool is_unknown;
	size_t record;

	if (len < HEADER_SIZE || !parse_question(message, len, question))
		return 0;
	is_unknown = !strncasecmp(question->name, "nx.", 3);
	record = is_unknown ? 0 : put_record(message + question->end, question);
	put16(message + 2, FLAGS_ANSWER | (is_unknown ? RCODE_NXDOMAIN : 0));
	put16(message + 4, 1);
	put16(message + 6, record > 0);
	memset(message + 8, 0, 4);
	return question->end + record;
}

/* Before the reply: who has that finds this in the log. */
static void report(const struct workload *workload, const char *transport, const union addr *client,
		   const struct question *question)
{
	char text[ADDR_TEXT_SIZE];
	struct json json;

	json_open(&json);
	json_str(&json, "event", "dns");
	json_str(&json, "standin", config.name);
	json_str(&json, "netns", workload->path);
	json_str(&json, "workload", workload->uid);
	json_int(&json, "listener", DNS_PORT);
	json_str(&json, "transport", transport);
	json_str(&json, "client", addr_text(client, text));
	json_str(&json, "name", question->name);
	json_int(&json, "type", question->type);
	json_close(&json);
	json_write(&json, config.log_fd);
}

/* To the bare question, as RFC 2181, section 9, wants it. Returns the new size. */
static size_t truncate_reply(uint8_t *message, const struct question *question)
{
	put16(message + 2, FLAGS_ANSWER | FLAG_TRUNCATED);
	put16(message + 6, 0);
	return question->end;
}

bool take_dns_query(struct listener *listener)
{
	uint8_t message[MAX_MESSAGE + 64];
	struct question question;
	union addr client;
	socklen_t addr_size = sizeof(client);
	ssize_t len = recvfrom(listener->fd, message, MAX_MESSAGE, 0, &client.sa, &addr_size);

	if (len < 0)
		return false;
	len = make_reply(message, len, &question);
	if (!len)
		return true;
	if (!strncasecmp(question.name, "tc.", 3))
		len = truncate_reply(message, &question);
	report(listener->workload, "udp", &client, &question);
	sendto(listener->fd, message, len, 0, &client.sa, addr_size);
	return true;
}

static bool read_all(int fd, void *buffer, size_t len)
{
	return recv(fd, buffer, len, MSG_WAITALL) == (ssize_t)len;
}

/* The reply is sent together with its two bytes of length. */
static bool serve_query(struct conn *conn)
{
	uint8_t message[2 + MAX_MESSAGE + 64];
	struct question question;
	size_t len;

	if (!read_all(conn->client, message, 2))
		return false;
	len = message[0] << 8 | message[1];
	if (len > MAX_MESSAGE || !read_all(conn->client, message + 2, len))
		return false;
	len = make_reply(message + 2, len, &question);
	put16(message, len);
	if (!len)
		return false;
	report(conn->workload, "tcp", &conn->peer, &question);
	return send_all(conn->client, message, len + 2);
}

void serve_dns(struct conn *conn)
{
	while (serve_query(conn))
		;
}
