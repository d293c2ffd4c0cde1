// SPDX-License-Identifier: Apache-2.0
#include "tally.h"

#include <string.h>

void tally_add(struct tally *tally, const char *name)
{
	pthread_mutex_lock(&tally->lock);
	for (int i = 0; i < TALLY_NAMES; i++) {
		if (tally->entries[i].name && strcmp(tally->entries[i].name, name))
			continue;
		tally->entries[i].name = name;
		tally->entries[i].count++;
		break;
	}
	pthread_mutex_unlock(&tally->lock);
}

void tally_put(struct tally *tally, struct json *json, const char *key)
{
	struct json counts;

	json_open(&counts);
	pthread_mutex_lock(&tally->lock);
	for (int i = 0; i < TALLY_NAMES && tally->entries[i].name; i++)
		json_int(&counts, tally->entries[i].name, tally->entries[i].count);
	pthread_mutex_unlock(&tally->lock);
	json_close(&counts);
	counts.text[counts.len - 1] = '\0';
	json_raw(json, key, counts.text);
}
