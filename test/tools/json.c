// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void append(struct json *json, const char *text, size_t len)
{
	/* Room is kept for the closing "}\n". */
	if (json->len + len + 3 > sizeof(json->text)) {
		json->overflow = true;
		return;
	}
	memcpy(json->text + json->len, text, len);
	json->len += len;
}

static void append_text(struct json *json, const char *text)
{
	append(json, text, strlen(text));
}

static void append_char(struct json *json, unsigned char c)
{
	char escaped[8];

	if (c == '"' || c == '\\')
		snprintf(escaped, sizeof(escaped), "\\%c", c);
	else if (c < 0x20 || c >= 0x7f)
		snprintf(escaped, sizeof(escaped), "\\u%04x", c);
	else
		snprintf(escaped, sizeof(escaped), "%c", c);
	append_text(json, escaped);
}

static void append_string(struct json *json, const char *text, size_t len)
{
	append_text(json, "\"");
	for (size_t i = 0; i < len; i++)
		append_char(json, text[i]);
	append_text(json, "\"");
}

static void append_key(struct json *json, const char *key)
{
	if (json->len > 1)
		append_text(json, ",");
	append_string(json, key, strlen(key));
	append_text(json, ":");
}

void json_open(struct json *json)
{
	json->overflow = false;
	json->text[0] = '{';
	json->len = 1;
}

void json_bytes(struct json *json, const char *key, const char *value, size_t len)
{
	append_key(json, key);
	append_string(json, value, len);
}

void json_str(struct json *json, const char *key, const char *value)
{
	if (value)
		json_bytes(json, key, value, strlen(value));
	else
		json_raw(json, key, NULL);
}

void json_raw(struct json *json, const char *key, const char *value)
{
	append_key(json, key);
	append_text(json, value ? value : "null");
}

void json_int(struct json *json, const char *key, long long value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%lld", value);
	json_raw(json, key, digits);
}

void json_bool(struct json *json, const char *key, bool value)
{
	json_raw(json, key, value ? "true" : "false");
}

void json_close(struct json *json)
{
	if (json->overflow) {
		json_open(json);
		json_str(json, "error", "line too long");
	}
	memcpy(json->text + json->len, "}\n", 3);
	json->len += 2;
}

void json_write(const struct json *json, int fd)
{
	/* Nobody is left to tell when the log cannot be written. */
	ssize_t written = write(fd, json->text, json->len);

	(void)written;
}
