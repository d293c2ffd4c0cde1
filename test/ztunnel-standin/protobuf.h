// SPDX-License-Identifier: Apache-2.0
/* Reading protobuf, as strict as prost. Functions give false when it is malformed. */
#ifndef PROTOBUF_H
#define PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wire_type { VARINT, FIXED64, LEN, GROUP, END_GROUP, FIXED32 };

struct reader {
	const uint8_t *at;
	const uint8_t *end;
	/* Messages and groups that may still be opened */
	int depth;
	/* Why it is malformed */
	const char *error;
};

struct tag {
	uint32_t field;
	enum wire_type type;
};

/* RECURSION_LIMIT of prost */
#define READER_DEPTH 100

bool read_tag(struct reader *reader, struct tag *tag);
bool skip_field(struct reader *reader, struct tag tag);
/* The content of a message or a string, as a reader of its own. */
bool open_field(struct reader *reader, struct tag tag, struct reader *content);
/* Ends with NUL. text has room for what the reader may hold, and one more. */
bool read_string(struct reader *reader, struct tag tag, char *text);

#endif
