// SPDX-License-Identifier: Apache-2.0
/* How often something happened, by name. Names are constants of the program or of libc. */
#ifndef TALLY_H
#define TALLY_H

#include <pthread.h>

#include "json.h"

#define TALLY_NAMES 16

struct tally {
	pthread_mutex_t lock;
	struct {
		const char *name;
		int count;
	} entries[TALLY_NAMES];
};

/* A tally that is empty. */
#define TALLY                                                                                      \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER                                                  \
	}

void tally_add(struct tally *tally, const char *name);
/* Adds {"NAME":COUNT,...} under key. */
void tally_put(struct tally *tally, struct json *json, const char *key);

#endif
