// SPDX-License-Identifier: Apache-2.0
/* WorkloadRequest. Unknown fields are skipped, and of a oneof the last one counts. */
#include "protobuf.h"
#include "zds.h"

/* Reads a known field, or skips it. */
typedef bool read_field(struct reader *reader, struct tag tag, struct zds_request *request);

static bool read_fields(struct reader *reader, struct zds_request *request, read_field *read)
{
	struct tag tag;

	while (reader->at < reader->end) {
		if (!read_tag(reader, &tag) || !read(reader, tag, request))
			return false;
	}
	return true;
}

static bool read_message(struct reader *reader, struct tag tag, struct zds_request *request,
			 read_field *read)
{
	struct reader content;

	if (!open_field(reader, tag, &content))
		return false;
	if (read_fields(&content, request, read))
		return true;
	reader->error = content.error;
	return false;
}

static bool read_info_field(struct reader *reader, struct tag tag, struct zds_request *request)
{
	if (tag.field == 1)
		return read_string(reader, tag, request->name);
	if (tag.field == 2)
		return read_string(reader, tag, request->namespace);
	if (tag.field == 3)
		return read_string(reader, tag, request->service_account);
	return skip_field(reader, tag);
}

static bool read_add_field(struct reader *reader, struct tag tag, struct zds_request *request)
{
	if (tag.field == 1)
		return read_string(reader, tag, request->uid);
	if (tag.field != 2)
		return skip_field(reader, tag);
	request->has_info = true;
	return read_message(reader, tag, request, read_info_field);
}

static bool read_keep_field(struct reader *reader, struct tag tag, struct zds_request *request)
{
	return tag.field == 1 ? read_string(reader, tag, request->uid) : skip_field(reader, tag);
}

static bool read_del_field(struct reader *reader, struct tag tag, struct zds_request *request)
{
	return tag.field == 2 ? read_string(reader, tag, request->uid) : skip_field(reader, tag);
}

static bool read_empty(struct reader *reader, struct tag tag, struct zds_request *request)
{
	(void)request;
	return skip_field(reader, tag);
}

static const struct {
	enum zds_kind kind;
	read_field *read;
} payloads[] = {
	[1] = { ZDS_ADD, read_add_field },
	[2] = { ZDS_DEL, read_del_field },
	[3] = { ZDS_SNAPSHOT_SENT, read_empty },
	[5] = { ZDS_KEEP, read_keep_field },
};

static bool read_payload(struct reader *reader, struct tag tag, struct zds_request *request)
{
	if (tag.field >= sizeof(payloads) / sizeof(*payloads) || !payloads[tag.field].read)
		return skip_field(reader, tag);
	/* The same payload again is merged, another one takes its place. */
	if (request->kind != payloads[tag.field].kind)
		*request = (struct zds_request){ .kind = payloads[tag.field].kind };
	return read_message(reader, tag, request, payloads[tag.field].read);
}

const char *zds_decode(struct zds_request *request, const uint8_t *data, size_t len)
{
	struct reader reader = { .at = data, .end = data + len, .depth = READER_DEPTH };

	*request = (struct zds_request){ .kind = ZDS_NONE };
	if (!read_fields(&reader, request, read_payload))
		return reader.error;
	return request->kind ? NULL : "no payload";
}
