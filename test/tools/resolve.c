// SPDX-License-Identifier: Apache-2.0
/* resolve NAME: the addresses that getaddrinfo() of the C library finds, one a line. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	int error = argc == 2 ? getaddrinfo(argv[1], NULL, &hints, &found) : EAI_NONAME;
	char text[64];

	if (error) {
		fprintf(stderr, "%s\n", gai_strerror(error));
		return 1;
	}
	for (const struct addrinfo *each = found; each; each = each->ai_next) {
		if (!getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof(text), NULL, 0,
				 NI_NUMERICHOST))
			puts(text);
	}
	return 0;
}
