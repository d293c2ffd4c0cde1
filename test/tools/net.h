// SPDX-License-Identifier: Apache-2.0
/* Addresses, sockets and threads: what the test programs share. */
#ifndef TEST_NET_H
#define TEST_NET_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IPv4 or IPv6 address with a port. */
union addr {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage storage;
};

#define ADDR_TEXT_SIZE 64

/* host: numeric, IPv6 with or without brackets and with an optional %interface. port: host order.
 */
bool addr_parse(union addr *addr, const char *host, uint16_t port);
/* "ip:port", "[ip]:port", or an address alone, which gets default_port. */
bool addr_parse_endpoint(union addr *addr, const char *text, uint16_t default_port);
bool port_parse(uint16_t *port, const char *text);

socklen_t addr_len(const union addr *addr);
uint16_t addr_port(const union addr *addr);
void addr_set_port(union addr *addr, uint16_t port);
bool addr_is_mapped(const union addr *addr);
/* ::ffff:a.b.c.d becomes a.b.c.d */
void addr_canonical(union addr *addr);
/* a.b.c.d becomes ::ffff:a.b.c.d */
void addr_map(union addr *addr);
bool addr_is_loopback(const union addr *addr);
bool addr_same_ip(const union addr *a, const union addr *b);
/* "ip:port" of the canonical form. text: ADDR_TEXT_SIZE bytes. Returns text. */
char *addr_text(const union addr *addr, char *text);
/* "ip" of the canonical form, without brackets. */
char *addr_ip_text(const union addr *addr, char *text);

/* "ECONNREFUSED"; 0 is "". */
const char *error_name(int error);

int set_int(int fd, int level, int option, int value);
int set_nonblocking(int fd, bool on);
/* Create a socket in another netns; the thread comes back to home, or the process ends. -1 and
 * errno. */
int socket_in_netns(int netns, int home, int domain, int type, int protocol);
int own_netns(void);
/* Non-blocking afterwards. Returns 0 or an errno value, ETIMEDOUT when the time is over. */
int connect_within(int fd, const union addr *to, int timeout_ms);
/* Wait for events. false: the time is over. */
bool wait_for(int fd, short events, int timeout_ms);
/* Write everything to a blocking or non-blocking socket, without SIGPIPE. */
bool send_all(int fd, const void *data, size_t len);

void raise_nofile(void);
/* A thread with a small stack, so that thousands fit. */
bool spawn(pthread_t *thread, void *(*run)(void *), void *arg);
bool spawn_detached(void *(*run)(void *), void *arg);

#endif
