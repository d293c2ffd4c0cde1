// SPDX-License-Identifier: Apache-2.0
/* One JSON object on one line. */
#ifndef TEST_JSON_H
#define TEST_JSON_H

#include <stdbool.h>
#include <stddef.h>

struct json {
	char text[8192];
	size_t len;
	bool overflow;
};

void json_open(struct json *json);
/* value NULL: null */
void json_str(struct json *json, const char *key, const char *value);
/* Not terminated by NUL. */
void json_bytes(struct json *json, const char *key, const char *value, size_t len);
void json_int(struct json *json, const char *key, long long value);
void json_bool(struct json *json, const char *key, bool value);
/* value is JSON already; NULL: null */
void json_raw(struct json *json, const char *key, const char *value);
/* Closes the object and ends the line. An object that did not fit becomes {"error":...}. */
void json_close(struct json *json);
/* With one write(2), so that lines of many threads and processes in one O_APPEND file stay whole.
 */
void json_write(const struct json *json, int fd);

#endif
