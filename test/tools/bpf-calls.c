// SPDX-License-Identifier: Apache-2.0
/* sock bpf: what the kernel says when this process reaches for eBPF programs and maps; "" where it succeeds. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sock.h"

/* The name of the error, "" for none. The descriptor is not kept. */
static const char *call(int command, union bpf_attr *attr)
{
	int fd = syscall(SYS_bpf, command, attr, sizeof(*attr));

	if (fd < 0)
		return error_name(errno);
	close(fd);
	return "";
}

static const char *load_program(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SK_LOOKUP,
		.expected_attach_type = BPF_SK_LOOKUP,
		.insns = (uintptr_t)code,
		.insn_cnt = 2,
		.license = (uintptr_t) "GPL",
	};

	return call(BPF_PROG_LOAD, &attr);
}

static const char *create_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_HASH,
		.key_size = 4,
		.value_size = 4,
		.max_entries = 1,
	};

	return call(BPF_MAP_CREATE, &attr);
}

static const char *open_pin(const char *path)
{
	union bpf_attr attr = { .pathname = (uintptr_t)path };

	return call(BPF_OBJ_GET, &attr);
}

/* The first id that there is, of a program, map or link. */
static const char *open_first(int next_id, int open_by_id)
{
	union bpf_attr attr = { .start_id = 0 };
	uint32_t id;

	if (syscall(SYS_bpf, next_id, &attr, sizeof(attr)))
		return error_name(errno);
	id = attr.next_id;
	attr = (union bpf_attr){ .prog_id = id };
	return call(open_by_id, &attr);
}

int bpf_calls(int argc, char **argv)
{
	static const struct option_spec none[] = { { 0 } };
	struct json json;

	if (parse_options(none, argc, argv) != 1)
		misuse("bpf wants the path of a pin");
	json_open(&json);
	json_str(&json, "program", load_program());
	json_str(&json, "map", create_map());
	json_str(&json, "pin", open_pin(argv[1]));
	json_str(&json, "programs", open_first(BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID));
	json_str(&json, "maps", open_first(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID));
	json_str(&json, "links", open_first(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}
