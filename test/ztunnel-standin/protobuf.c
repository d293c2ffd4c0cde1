// SPDX-License-Identifier: Apache-2.0
#include "protobuf.h"

#include <string.h>

static bool fail(struct reader *reader, const char *error)
{
	reader->error = error;
	return false;
}

static bool read_varint(struct reader *reader, uint64_t *value)
{
	*value = 0;
	for (int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
		uint8_t byte = *reader->at++;

		if (shift == 63 && byte > 1)
			break;
		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return fail(reader, "invalid varint");
}

bool read_tag(struct reader *reader, struct tag *tag)
{
	uint64_t key;

	if (!read_varint(reader, &key))
		return false;
	if (key > UINT32_MAX)
		return fail(reader, "invalid key value");
	tag->field = key >> 3;
	tag->type = key & 7;
	if (tag->type > FIXED32)
		return fail(reader, "invalid wire type value");
	return tag->field || fail(reader, "invalid tag value: 0");
}

static bool skip_bytes(struct reader *reader, uint64_t len)
{
	if (len > (uint64_t)(reader->end - reader->at))
		return fail(reader, "buffer underflow");
	reader->at += len;
	return true;
}

static bool skip_group(struct reader *reader, uint32_t field)
{
	struct tag tag;

	reader->depth--;
	while (read_tag(reader, &tag)) {
		if (tag.type == END_GROUP && tag.field == field) {
			reader->depth++;
			return true;
		}
		if (!skip_field(reader, tag))
			return false;
	}
	return false;
}

bool skip_field(struct reader *reader, struct tag tag)
{
	uint64_t value;

	if (!reader->depth)
		return fail(reader, "recursion limit reached");
	switch (tag.type) {
	case VARINT:
		return read_varint(reader, &value);
	case FIXED64:
		return skip_bytes(reader, 8);
	case FIXED32:
		return skip_bytes(reader, 4);
	case LEN:
		return read_varint(reader, &value) && skip_bytes(reader, value);
	case GROUP:
		return skip_group(reader, tag.field);
	case END_GROUP:
		break;
	}
	return fail(reader, "unexpected end group tag");
}

bool open_field(struct reader *reader, struct tag tag, struct reader *content)
{
	uint64_t len;

	if (tag.type != LEN)
		return fail(reader, "invalid wire type");
	if (!read_varint(reader, &len))
		return false;
	*content = (struct reader){ .at = reader->at, .depth = reader->depth - 1 };
	if (!skip_bytes(reader, len))
		return false;
	content->end = reader->at;
	return true;
}

/* Not overlong, no surrogates, up to U+10FFFF. Returns the size of the character, 0 for none. */
static size_t measure_utf8(const uint8_t *at, size_t len)
{
	uint8_t first = *at, low = 0x80, high = 0xbf;
	size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || size > len)
		return 0;
	if (first == 0xe0)
		low = 0xa0;
	if (first == 0xed)
		high = 0x9f;
	if (first == 0xf0)
		low = 0x90;
	if (first == 0xf4)
		high = 0x8f;
	for (size_t i = 1; i < size; i++, low = 0x80, high = 0xbf) {
		if (at[i] < low || at[i] > high)
			return 0;
	}
	return size;
}

bool read_string(struct reader *reader, struct tag tag, char *text)
{
	struct reader content;

	if (!open_field(reader, tag, &content))
		return false;
	memcpy(text, content.at, content.end - content.at);
	text[content.end - content.at] = '\0';
	while (content.at < content.end) {
		size_t size = measure_utf8(content.at, content.end - content.at);

		if (!size)
			return fail(reader, "invalid string value: data is not UTF-8 encoded");
		content.at += size;
	}
	return true;
}
