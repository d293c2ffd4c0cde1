// SPDX-License-Identifier: Apache-2.0
/* One connect() or sendmsg() of io_uring, by bare system calls. */
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sock.h"

struct ring {
	int fd;
	struct io_uring_params params;
	/* Submission and completion ring share one mapping (IORING_FEAT_SINGLE_MMAP, 5.4). */
	char *rings;
	struct io_uring_sqe *sqes;
};

static void *map(const struct ring *ring, size_t size, off_t offset)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
		    offset);
}

static bool ring_open(struct ring *ring)
{
	struct io_uring_params *params = &ring->params;
	size_t size;

	ring->fd = syscall(SYS_io_uring_setup, 1, params);
	if (ring->fd < 0)
		return false;
	size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	if (size < params->sq_off.array + params->sq_entries * sizeof(unsigned int))
		size = params->sq_off.array + params->sq_entries * sizeof(unsigned int);
	ring->rings = map(ring, size, IORING_OFF_SQ_RING);
	ring->sqes = map(ring, params->sq_entries * sizeof(*ring->sqes), IORING_OFF_SQES);
	return ring->rings != MAP_FAILED && ring->sqes != MAP_FAILED;
}

static bool submit(struct ring *ring, const struct io_uring_sqe *request)
{
	unsigned int *tail = (unsigned int *)(ring->rings + ring->params.sq_off.tail);
	unsigned int *array = (unsigned int *)(ring->rings + ring->params.sq_off.array);

	ring->sqes[0] = *request;
	array[0] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	return syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1;
}

static int result(const struct ring *ring)
{
	struct io_uring_cqe *cqes = (void *)(ring->rings + ring->params.cq_off.cqes);

	return cqes[0].res < 0 ? -cqes[0].res : 0;
}

/* The ring is left to the end of the process. */
static int do_by_io_uring(const struct io_uring_sqe *request, int timeout_ms)
{
	struct ring ring = { 0 };

	if (!ring_open(&ring) || !submit(&ring, request))
		return errno;
	if (!wait_for(ring.fd, POLLIN, timeout_ms))
		return ETIMEDOUT;
	return result(&ring);
}

int connect_by_io_uring(int fd, const union addr *to, bool async, int timeout_ms)
{
	struct io_uring_sqe request = {
		.opcode = IORING_OP_CONNECT,
		.flags = async ? IOSQE_ASYNC : 0,
		.fd = fd,
		.addr = (uintptr_t)to,
		.off = addr_len(to),
	};

	return do_by_io_uring(&request, timeout_ms);
}

int send_by_io_uring(int fd, const struct msghdr *message, int timeout_ms)
{
	struct io_uring_sqe request = {
		.opcode = IORING_OP_SENDMSG,
		.fd = fd,
		.addr = (uintptr_t)message,
		.len = 1,
	};

	return do_by_io_uring(&request, timeout_ms);
}
