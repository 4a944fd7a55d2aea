/*
 * ipcd_ring.h: producers and consumers of ipcd's shared-memory rings, in C11 and C++17, in one file.
 *
 * A ring is a named broadcast log in shared memory: every consumer sees every message. Each producer
 * writes a lane of its own; a consumer reads all lanes. Order is kept within a lane, not across lanes.
 * Publishing and reading are plain memory accesses; the kernel is asked only to sleep and to wake, the
 * daemon only when members come and go. While the daemon is down, members go on.
 *
 *     struct ipcd_ring_producer *p;
 *     if (ipcd_ring_producer_open(&p, "/ticks", NULL) == 0) {
 *         ipcd_ring_publish(p, 7, "hello", 5);
 *         ipcd_ring_producer_close(p);
 *     }
 *
 *     struct ipcd_ring_consumer *c;
 *     struct ipcd_ring_message m;
 *     if (ipcd_ring_consumer_open(&c, "/ticks", NULL) == 0) {
 *         while (ipcd_ring_next(c, &m, -1) == 0)
 *             fwrite(m.payload, 1, m.size, stdout);
 *         ipcd_ring_consumer_close(c);
 *     }
 *
 * Errors: functions return 0 (or a count) when all went well, else a negative errno. Every function says which.
 * Threads: a handle is used by one thread at a time. Different handles share nothing.
 * Signals: a wait that a signal handler interrupts returns -EINTR, and nothing was published or read by then.
 * fork: the memory is not inherited by a child; a child that uses its parent's handle faults.
 * Units: sizes are in bytes, spans in nanoseconds (a negative timeout is no timeout, 0 is not waiting at all).
 *
 * What starts with ipcd_i_ is this file's own business and may change. The layout of the memory is
 * described in docs/ring-layout.md. Needs Linux, 64 bits, little endian, gcc 7 or clang 6 or later. Include it
 * before system headers, or compile with -D_GNU_SOURCE, or -std=gnu11, or as C++.
 */
#ifndef IPCD_RING_H
#define IPCD_RING_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(__linux__)
#error "ipcd_ring.h: rings are shared memory of Linux"
#elif !defined(MADV_DONTFORK) || !defined(SOCK_CLOEXEC) || !defined(MSG_CMSG_CLOEXEC)
#error "ipcd_ring.h: include it before system headers, or compile with -D_GNU_SOURCE"
#elif UINTPTR_MAX != UINT64_MAX || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ipcd_ring.h: the memory of rings is for 64-bit little-endian machines"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The layout of the memory: see docs/ring-layout.md ---- */

#define IPCD_RING_VERSION 1
#define IPCD_RING_MAX_LANES 64
#define IPCD_RING_MAX_CONSUMERS 64
#define IPCD_RING_CAPACITY_MIN (UINT64_C(64) << 10)
#define IPCD_RING_CAPACITY_MAX (UINT64_C(1) << 30)

#define IPCD_RING_LANE_MAGIC "IPCDLANE"
#define IPCD_RING_LANE_HEADER 72
#define IPCD_RING_LANE_PUBLISHED 4096
#define IPCD_RING_LANE_SEQUENCE 4104
#define IPCD_RING_LANE_OLDEST (4096 + 128)
#define IPCD_RING_LANE_WAKE (4096 + 256)
#define IPCD_RING_LANE_SEEN (4096 + 384)
#define IPCD_RING_LANE_BLOCKED (4096 + 512)
#define IPCD_RING_LANE_COUNTERS (4096 + 640)
#define IPCD_RING_LANE_EVICTED (4096 + 1024)
#define IPCD_RING_LANE_DATA 8192

#define IPCD_RING_FRAME_HEADER 32
#define IPCD_RING_FRAME_ALIGN 32
#define IPCD_RING_PAD 1u

#define IPCD_RING_CONSUMER_MAGIC "IPCDCONS"
#define IPCD_RING_CONSUMER_HEADER 48
#define IPCD_RING_CONSUMER_PARKED(slot) (128u * (1u + (slot) % 16u))
#define IPCD_RING_CONSUMER_WAKE 2176
#define IPCD_RING_CONSUMER_COUNTERS 2304
#define IPCD_RING_CONSUMER_LINES 4096
#define IPCD_RING_CONSUMER_SIZE 12288
#define IPCD_RING_MEMBERS_SIZE 4096

/* ---- What programs use ---- */

/* Where a consumer begins in the lanes that were there before it. Later lanes are read from their beginning. */
enum ipcd_ring_start {
	IPCD_RING_NEWEST = 0,  /* only what is published from now on */
	IPCD_RING_OLDEST = 1,  /* with what the ring still holds */
	IPCD_RING_SEQUENCE = 2 /* with the first frame of each lane whose sequence is at least options.sequence */
};

/* Options of both kinds of handle; all zero is the default: see ipcd_ring_options_init. */
struct ipcd_ring_options {
	const char *socket;   /* path of attach.sock; NULL: $IPCD_ATTACH, else attach.sock beside the socket of
	                         $IPCD_ADDRESS, else of $XDG_RUNTIME_DIR/ipcd, else /run/ipcd/attach.sock */
	int64_t timeout_ns;   /* how long opening may take; 0: 30 seconds */
	bool lossless;        /* consumer: hold back the producers of a lossless ring instead of losing messages */
	bool untimed;         /* producer: frames carry time 0, which saves reading the clock */
	enum ipcd_ring_start start; /* consumer */
	uint64_t sequence;    /* consumer: see IPCD_RING_SEQUENCE */
	const int64_t *types; /* consumer: only messages of these types, which are positive; NULL: all. Copied. */
	size_t types_count;
	char *text;           /* if not NULL: opening writes there, in words, what went wrong */
	size_t text_size;     /* bytes at text; 256 is plenty */
};

/* A message that was read. */
struct ipcd_ring_message {
	int64_t type;        /* the producer's: a positive number */
	int64_t time_ns;     /* when it was published, ns since 1970, to a microsecond or so; 0: the producer does not say */
	uint64_t lane;       /* id of the lane */
	uint64_t sequence;   /* 1 for the lane's first message, then rising by 1 */
	uint64_t lost;       /* messages of this lane that were lost just before this one */
	size_t size;         /* bytes of payload */
	const void *payload; /* valid until the next call on the handle */
};

/* A message to be published; see ipcd_ring_publish_batch. */
struct ipcd_ring_item {
	int64_t type;
	const void *payload; /* may be NULL if size is 0 */
	size_t size;
};

/* What a producer did so far. */
struct ipcd_ring_producer_stats {
	uint64_t lane, sequence;       /* id; sequence of the last published message, 0: none */
	uint64_t published, oldest;    /* positions: bytes since the lane began */
	uint64_t wakes, elided;        /* FUTEX_WAKE calls; publishes that saw only sleepers which were woken already */
	uint64_t blocks, blocked_ns;   /* waits for lossless consumers */
	uint64_t evictions, backstops; /* consumers evicted; waits that only the backstop ended (0 unless a member is hostile or died) */
	unsigned consumers;            /* attached now */
};

/* What a consumer did so far. */
struct ipcd_ring_consumer_stats {
	uint64_t received, lost;         /* messages */
	uint64_t lag_messages, lag_bytes; /* published and not read yet, in all lanes */
	uint64_t parks, backstops;       /* sleeps; sleeps that only the backstop ended (0 unless a member is hostile or died) */
	uint64_t corrupt, evicted;       /* lanes given up; lanes in which it does not hold the producer any more */
	unsigned lanes;                  /* read now */
};

struct ipcd_ring_producer; /* a handle: made by open, freed by close */
struct ipcd_ring_consumer;

/* Sets all options to their defaults (what zeroing does). */
static inline void ipcd_ring_options_init(struct ipcd_ring_options *o) { memset(o, 0, sizeof *o); }

/*
 * Attach to the ring `name` ("/ticks") as a producer (write access) or consumer (read access; read and write if
 * options->lossless). options may be NULL. On success 0, and *out is the handle. Errors: -EINVAL (name or options),
 * -ENOENT (no such ring, or no daemon's socket), -EACCES, -EDQUOT and -ENOSPC (budgets), -ECONNREFUSED (no daemon
 * answers), -ETIMEDOUT, -ENOMEM, -EPROTO (what answers is no ipcd of this version), and whatever else the daemon or
 * the kernel says.
 */
static inline int ipcd_ring_producer_open(struct ipcd_ring_producer **out, const char *name,
	const struct ipcd_ring_options *options);
static inline int ipcd_ring_consumer_open(struct ipcd_ring_consumer **out, const char *name,
	const struct ipcd_ring_options *options);

/* Leave the ring and free the handle; NULL is ignored. What was published stays readable. */
static inline void ipcd_ring_producer_close(struct ipcd_ring_producer *p);
static inline void ipcd_ring_consumer_close(struct ipcd_ring_consumer *c);

/*
 * Publish a message: 0, or -EINVAL (a type is a positive number), -EMSGSIZE (more than ipcd_ring_max_payload),
 * -EBUSY (a claim is open), -EINTR, -EBADMSG (somebody else wrote into this lane), or what ended the membership
 * (-EIDRM: the ring was deleted, -EACCES: access was withdrawn, ...). In a lossless ring it waits for the slowest
 * lossless consumer, at most until that one is evicted. In other rings it never waits. ipcd_ring_try_publish
 * returns -EAGAIN, and ipcd_ring_publish_wait -ETIMEDOUT after timeout_ns, instead of waiting on.
 */
static inline int ipcd_ring_publish(struct ipcd_ring_producer *p, int64_t type, const void *payload, size_t size);
static inline int ipcd_ring_try_publish(struct ipcd_ring_producer *p, int64_t type, const void *payload, size_t size);
static inline int ipcd_ring_publish_wait(struct ipcd_ring_producer *p, int64_t type,
	const void *payload, size_t size, int64_t timeout_ns);

/* Publish one message gathered from `count` parts. Errors and waiting as ipcd_ring_publish_wait; -EINVAL: count is negative. */
static inline int ipcd_ring_publishv(struct ipcd_ring_producer *p, int64_t type,
	const struct iovec *parts, int count, int64_t timeout_ns);

/*
 * Publish messages with one commit and one wake-up (a few, if they do not fit a quarter of the lane). Returns how
 * many were published: fewer than `count` if one after them could not be; if it was the first, its error as
 * ipcd_ring_publish_wait.
 */
static inline int64_t ipcd_ring_publish_batch(struct ipcd_ring_producer *p,
	const struct ipcd_ring_item *items, size_t count, int64_t timeout_ns);

/*
 * Write a message in place: claim sets *payload to `size` writable bytes in the lane; commit publishes the first
 * `size` of them (-EINVAL: more than claimed, no claim is open, or the type is not positive; the claim stays);
 * abort gives the claim up without a trace. Readers see nothing before commit. Errors and waiting of claim as
 * ipcd_ring_publish_wait. commit never waits.
 */
static inline int ipcd_ring_claim(struct ipcd_ring_producer *p, size_t size, void **payload, int64_t timeout_ns);
static inline int ipcd_ring_commit(struct ipcd_ring_producer *p, int64_t type, size_t size);
static inline void ipcd_ring_abort(struct ipcd_ring_producer *p);

/* The largest payload in bytes. */
static inline size_t ipcd_ring_max_payload(const struct ipcd_ring_producer *p);

/* The sequence of the last message published, 0: none; and the id of the lane. */
static inline uint64_t ipcd_ring_sequence(const struct ipcd_ring_producer *p);
static inline uint64_t ipcd_ring_lane(const struct ipcd_ring_producer *p);

/*
 * Read the next message into the handle's buffer. 0: *m is filled, and m->payload valid until the next call.
 * Errors:
 *   -EAGAIN     timeout_ns is 0 and there is nothing (or nothing that the filter lets through among the next 1024
 *               frames)
 *   -ETIMEDOUT  nothing came within timeout_ns
 *   -EINTR      a signal handler ran while it waited
 *   -EBADMSG    a producer's memory does not make sense. Said once; that lane is read no further, reading goes on
 *               with the others
 *   -EPIPE      a lossless consumer held a producer up for too long and was evicted. Said once per lane; reading
 *               goes on, as in overwrite mode
 *   -ENOMEM     no memory for the buffer; the message stays
 *   -EIDRM, -EACCES, ... the membership ended: every later call says the same
 * ipcd_ring_next_into reads into the caller's buffer; if it is too small, -EMSGSIZE, m->size says what is needed,
 * and the message stays.
 */
static inline int ipcd_ring_next(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m, int64_t timeout_ns);
static inline int ipcd_ring_next_into(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m,
	void *buffer, size_t size, int64_t timeout_ns);

/*
 * Borrow the next message where it lies, without copying: m->payload points into the lane until the next call. In a
 * ring that overwrites, its bytes may change meanwhile: use them first, then ask ipcd_ring_view_valid; if that is
 * false throw away what was made of them (it counts as lost). Errors as ipcd_ring_next, but -ENOMEM.
 */
static inline int ipcd_ring_view(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m, int64_t timeout_ns);
static inline bool ipcd_ring_view_valid(struct ipcd_ring_consumer *c);

/*
 * Look after the membership: learn of new members, come back after the daemon has been restarted. Never blocks;
 * publish and next do it by themselves. A program that may neither publish nor read for more than a second calls it
 * about once a second. 0, or what ended the membership. It ends a borrowed view.
 */
static inline int ipcd_ring_producer_service(struct ipcd_ring_producer *p);
static inline int ipcd_ring_consumer_service(struct ipcd_ring_consumer *c);

/* Counters, and how far behind a consumer is. */
static inline void ipcd_ring_producer_get_stats(const struct ipcd_ring_producer *p, struct ipcd_ring_producer_stats *s);
static inline void ipcd_ring_consumer_get_stats(const struct ipcd_ring_consumer *c, struct ipcd_ring_consumer_stats *s);

/* In words, what the last -EBADMSG, -EPIPE or end of the membership was about; "" if there was none. Valid until the next call. */
static inline const char *ipcd_ring_producer_text(const struct ipcd_ring_producer *p);
static inline const char *ipcd_ring_consumer_text(const struct ipcd_ring_consumer *c);

/* ---- For those who bring the memory themselves: tests, and other ways of attaching ---- */

enum { IPCD_RING_LOSSLESS = 1, IPCD_RING_ENDED = 2, IPCD_RING_FD = 4 }; /* flags of joined and peers */
enum { IPCD_RING_PRODUCER = 1, IPCD_RING_CONSUMER = 2 };               /* roles */
enum { IPCD_RING_KIND_LANE = 1, IPCD_RING_KIND_CONSUMER = 2 };         /* kinds of peer */

/* What a member is told when it joins. */
struct ipcd_ring_joined {
	uint64_t ring_id, id, epoch; /* epoch: the members epoch at which it joined */
	uint32_t slot, flags;        /* 0 to 63; IPCD_RING_LOSSLESS: the ring is (producer), it holds producers (consumer) */
	uint64_t capacity;           /* producer: bytes of the lane's data */
	uint32_t max_frame;          /* producer: bytes of a frame with its header */
	uint64_t stall_ns;           /* producer: how long a consumer may hold it up */
};

/* Another member: a lane to a consumer, a consumer to a producer. */
struct ipcd_ring_peer {
	uint64_t id, epoch;
	uint32_t kind, slot, flags; /* flags: IPCD_RING_LOSSLESS, IPCD_RING_ENDED */
	uint64_t size, capacity;    /* bytes: of the memory; of a lane's data */
	uint32_t max_frame;         /* lanes */
	int fd;                     /* a readable descriptor of its memory; -1: it was given before */
};

/*
 * Make a handle over memory that is there already. memory (writable) and page (the members page, readable) are
 * descriptors; both stay the caller's. It never asks a daemon: who makes it tells it of its peers with offer.
 * Errors: -EINVAL, -ENOMEM, those of mmap.
 */
static inline int ipcd_ring_producer_from(struct ipcd_ring_producer **out,
	const struct ipcd_ring_joined *joined, int memory, int page, const struct ipcd_ring_options *options);
static inline int ipcd_ring_consumer_from(struct ipcd_ring_consumer **out,
	const struct ipcd_ring_joined *joined, int memory, int page, const struct ipcd_ring_options *options);

/*
 * The members at an epoch. Peers that are missing are dropped unless `partial`. Descriptors are closed in any case.
 * Errors: -EPROTO (a peer that makes no sense), those of mmap.
 */
static inline int ipcd_ring_producer_offer(struct ipcd_ring_producer *p, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count);
static inline int ipcd_ring_consumer_offer(struct ipcd_ring_consumer *c, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count);

/* ==== From here on: how it is done ==== */

#define IPCD_I_COLD __attribute__((noinline, cold, unused))
#define IPCD_I_LIKELY(x) __builtin_expect(!!(x), 1)
#define IPCD_I_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define IPCD_I_MS INT64_C(1000000)
#define IPCD_I_SECOND INT64_C(1000000000)
#define IPCD_I_BACKSTOP (100 * IPCD_I_MS)  /* the longest sleep */
#define IPCD_I_SUSPICION (10 * IPCD_I_SECOND) /* how long sleeps are short after only the backstop ended one */
#define IPCD_I_FRAMES 1024                 /* that one call looks at */
#define IPCD_I_BURST 256                   /* frames of one lane before the next lane has its turn */
#ifndef IPCD_RING_FUTEX_WAITV
#define IPCD_RING_FUTEX_WAITV 449 /* the number of futex_waitv(2), the same on all machines */
#endif
#ifndef IPCD_RING_SPINS
#define IPCD_RING_SPINS 200 /* looks before a sleep, some 10 us; 0 where there is one processor only */
#endif

/* Words of shared memory. All have one writer; the orders are those of docs/ring-layout.md. */
static inline uint64_t ipcd_i_load64(const uint8_t *at) { return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED); }
static inline uint64_t ipcd_i_acquire64(const uint8_t *at) { return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE); }
static inline uint64_t ipcd_i_strong64(const uint8_t *at) { return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_SEQ_CST); }
static inline uint32_t ipcd_i_load32(const uint8_t *at) { return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED); }
static inline uint32_t ipcd_i_strong32(const uint8_t *at) { return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_SEQ_CST); }
static inline void ipcd_i_store64(uint8_t *at, uint64_t v) { __atomic_store_n((uint64_t *)(void *)at, v,
	__ATOMIC_RELAXED); }
static inline void ipcd_i_release64(uint8_t *at, uint64_t v) { __atomic_store_n((uint64_t *)(void *)at,
	v, __ATOMIC_RELEASE); }
static inline void ipcd_i_strong_store64(uint8_t *at,
	uint64_t v) { __atomic_store_n((uint64_t *)(void *)at, v, __ATOMIC_SEQ_CST); }
static inline void ipcd_i_strong_store32(uint8_t *at,
	uint32_t v) { __atomic_store_n((uint32_t *)(void *)at, v, __ATOMIC_SEQ_CST); }

/* Adds one to a counter that this process alone writes. */
static inline void ipcd_i_count(uint8_t *counters, unsigned index, uint64_t by)
{
	uint8_t *at = counters + 8 * index;
	ipcd_i_store64(at, ipcd_i_load64(at) + by);
}

static inline uint64_t ipcd_i_frame_size(uint64_t payload) { return (IPCD_RING_FRAME_HEADER + payload + 31) & ~UINT64_C(31); }

static inline int64_t ipcd_i_clock(clockid_t which)
{
	struct timespec t;
	clock_gettime(which, &t);
	return (int64_t)t.tv_sec * IPCD_I_SECOND + (int64_t)t.tv_nsec;
}

static inline int64_t ipcd_i_now(void) { return ipcd_i_clock(CLOCK_MONOTONIC); }

static inline int64_t ipcd_i_deadline(int64_t timeout_ns)
{
	if (timeout_ns <= 0)
		return timeout_ns < 0 ? INT64_MAX : 0;
	int64_t now = ipcd_i_now();
	return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

static inline void ipcd_i_sleep(int64_t span)
{
	struct timespec t;
	t.tv_sec = (time_t)(span / IPCD_I_SECOND);
	t.tv_nsec = (long)(span % IPCD_I_SECOND);
	nanosleep(&t, NULL);
}

static inline void ipcd_i_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory"); /* yield is next to nothing on most cores */
#endif
}

/* A counter of the processor that is cheap to read; IPCD_I_TICKS of it are less than 2 us. */
static inline uint64_t ipcd_i_ticks(void)
{
#if defined(__x86_64__)
#define IPCD_I_TICKS 2000
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
#define IPCD_I_TICKS 24
	uint64_t ticks;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
#else
#define IPCD_I_TICKS 0
	return 0;
#endif
}

/* How often to look before sleeping: not at all if this thread has one processor only. */
static inline unsigned ipcd_i_spins(void)
{
	unsigned long mask[128];
	unsigned processors = 0;
	long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
	for (size_t i = 0; bytes > 0 && i < (size_t)bytes / sizeof mask[0]; i++)
		processors += (unsigned)__builtin_popcountl(mask[i]);
	return processors == 1 ? 0 : IPCD_RING_SPINS;
}

/* ---- Sleeping: futex(2), futex_waitv(2) ---- */

struct ipcd_i_word { /* struct futex_waitv */
	uint64_t value, address;
	uint32_t flags, reserved;
};

struct ipcd_i_timespec { /* struct __kernel_timespec */
	int64_t seconds, nanoseconds;
};

#define IPCD_I_WORDS (IPCD_RING_MAX_LANES + 1)

/* Wakes all who sleep on a word. */
static inline void ipcd_i_wake(const uint8_t *word)
{
	int saved = errno;
	syscall(SYS_futex, word, 1 /* FUTEX_WAKE */, INT32_MAX, NULL, NULL, 0);
	errno = saved;
}

static inline void ipcd_i_watch(struct ipcd_i_word *w, const uint8_t *word, uint32_t value)
{
	w->value = value;
	w->address = (uint64_t)(uintptr_t)word;
	w->flags = 2; /* FUTEX2_SIZE_U32, shared */
	w->reserved = 0;
}

/* Sleeps until `until` (CLOCK_MONOTONIC) unless a word has changed or is woken: 0, -ETIMEDOUT or -EINTR. */
static IPCD_I_COLD int ipcd_i_wait(const struct ipcd_i_word *words, unsigned count, int64_t until)
{
	static int missing; /* the kernel has no futex_waitv (before 5.16), or a filter forbids it */
	if (!__atomic_load_n(&missing, __ATOMIC_RELAXED)) {
		struct ipcd_i_timespec at;
		at.seconds = until / IPCD_I_SECOND;
		at.nanoseconds = until % IPCD_I_SECOND;
		if (syscall(IPCD_RING_FUTEX_WAITV, words, count, 0, &at, CLOCK_MONOTONIC) >= 0 || errno == EAGAIN)
			return 0;
		if (errno == ETIMEDOUT || errno == EINTR)
			return -errno;
		__atomic_store_n(&missing, 1, __ATOMIC_RELAXED);
	}
	/* Gentle polling: of the same words, which change as if they were slept on. */
	for (int64_t pause = IPCD_I_MS / 20;; pause = pause < IPCD_I_MS ? pause * 2 : pause) {
		for (unsigned i = 0; i < count; i++)
			if (ipcd_i_strong32((const uint8_t *)(uintptr_t)words[i].address) != (uint32_t)words[i].value)
				return 0;
		int64_t left = until - ipcd_i_now();
		if (left <= 0)
			return -ETIMEDOUT;
		struct timespec t;
		t.tv_sec = 0;
		t.tv_nsec = (long)(left < pause ? left : pause);
		if (nanosleep(&t, NULL) != 0)
			return -EINTR;
	}
}

/* ---- What producers and consumers have in common: the membership ---- */

enum ipcd_i_link {
	IPCD_I_ALONE,    /* no daemon is asked: see ipcd_ring_producer_from */
	IPCD_I_DOWN,     /* no connection; the next attempt is at retry_at */
	IPCD_I_ADOPTING, /* ADOPT was sent */
	IPCD_I_UP,       /* attached, nothing is outstanding */
	IPCD_I_ASKED     /* attached, MEMBERS was sent */
};

struct ipcd_i_member {
	/* Looked at by every publish and read. */
	const uint8_t *page; /* the members page */
	uint64_t known;      /* the epoch of the members that are mapped */
	int dead;            /* the negative errno that ended the membership, 0: none */
	int closed;          /* the handle is being closed */
	bool moved;          /* another members page is used since the last MEMBERS */
	uint8_t *memory;     /* its own, writable */
	size_t size;
	uint64_t id, epoch;
	uint64_t granted;    /* the epoch that it was told it would join at: ADOPT names it */
	uint32_t slot, flags;

	uint32_t role;
	unsigned spins;
	enum ipcd_i_link link;
	int socket;           /* -1: none */
	int own;              /* read-only descriptor of the memory, for ADOPT; -1: none */
	uint64_t noticed;     /* the newest epoch for which something was done */
	int64_t looked;       /* when the membership was last looked after */
	int64_t retry_at, backoff; /* DOWN; ADOPTING: retry_at is when it is given up */
	uint64_t ring_id;
	uint8_t token[32];
	char name[208];
	char path[108];
	char text[256];
};

#define IPCD_I_PACKET 8192
#define IPCD_I_FILES 128

/* One packet and the descriptors that came with it. */
struct ipcd_i_packet {
	uint64_t bytes[IPCD_I_PACKET / 8];
	size_t size;
	int files[IPCD_I_FILES];
	size_t count, taken;
};

static inline void ipcd_i_put(struct ipcd_i_packet *p, size_t at, const void *from, size_t size)
{
	memcpy((uint8_t *)(void *)p->bytes + at, from, size);
}

static inline void ipcd_i_put32(struct ipcd_i_packet *p, size_t at, uint32_t v) { ipcd_i_put(p, at, &v, 4); }
static inline void ipcd_i_put64(struct ipcd_i_packet *p, size_t at, uint64_t v) { ipcd_i_put(p, at, &v, 8); }

static inline uint32_t ipcd_i_get32(const struct ipcd_i_packet *p, size_t at)
{
	uint32_t v;
	memcpy(&v, (const uint8_t *)(const void *)p->bytes + at, 4);
	return v;
}

static inline uint64_t ipcd_i_get64(const struct ipcd_i_packet *p, size_t at)
{
	uint64_t v;
	memcpy(&v, (const uint8_t *)(const void *)p->bytes + at, 8);
	return v;
}

static inline uint32_t ipcd_i_kind(const struct ipcd_i_packet *p) { return ipcd_i_get32(p, 0) & 0xffff; }

enum { /* kinds of packet */
	IPCD_I_ATTACH = 1, IPCD_I_READY = 2, IPCD_I_MEMBERS = 3, IPCD_I_GOT = 4, IPCD_I_DETACH = 5, IPCD_I_ADOPT = 6,
	IPCD_I_ERROR = 0x80, IPCD_I_MEMORY = 0x81, IPCD_I_ATTACHED = 0x82, IPCD_I_MEMBERS_REPLY = 0x83, IPCD_I_ADOPTED = 0x84
};

static inline void ipcd_i_begin(struct ipcd_i_packet *p, uint32_t kind, uint32_t size)
{
	memset(p->bytes, 0, size);
	p->size = size;
	ipcd_i_put32(p, 0, kind | (uint32_t)IPCD_RING_VERSION << 16);
	ipcd_i_put32(p, 4, size);
}

static inline int ipcd_i_take_file(struct ipcd_i_packet *p)
{
	return p->taken < p->count ? p->files[p->taken++] : -1;
}

static inline void ipcd_i_drop_files(struct ipcd_i_packet *p)
{
	while (p->taken < p->count)
		close(p->files[p->taken++]);
}

/* Sends a packet, with a descriptor unless file is -1. 0, or a negative errno. */
static IPCD_I_COLD int ipcd_i_send(int socket, struct ipcd_i_packet *p, int file)
{
	struct iovec part;
	struct msghdr m;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	part.iov_base = p->bytes;
	part.iov_len = p->size;
	memset(&m, 0, sizeof m);
	m.msg_iov = &part;
	m.msg_iovlen = 1;
	if (file >= 0) {
		memset(&control, 0, sizeof control);
		m.msg_control = control.bytes;
		m.msg_controllen = sizeof control.bytes;
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &file, sizeof file);
	}
	for (;;) {
		ssize_t n = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n == (ssize_t)p->size)
			return 0;
		if (n >= 0)
			return -EPROTO;
		if (errno != EINTR)
			return -errno;
	}
}

/* Receives a packet without waiting. 0, -EAGAIN: none is there, -EPIPE: the daemon hung up, -EPROTO, or another negative errno. */
static IPCD_I_COLD int ipcd_i_receive(int socket, struct ipcd_i_packet *p)
{
	struct iovec part;
	struct msghdr m;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(IPCD_I_FILES * sizeof(int))];
	} control;
	part.iov_base = p->bytes;
	part.iov_len = sizeof p->bytes;
	memset(&m, 0, sizeof m);
	m.msg_iov = &part;
	m.msg_iovlen = 1;
	m.msg_control = control.bytes;
	m.msg_controllen = sizeof control.bytes;
	p->count = p->taken = 0;
	ssize_t n;
	do
		n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? -EAGAIN : errno == ECONNRESET ? -EPIPE : -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			size_t files = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < files; i++) {
				int file;
				memcpy(&file, CMSG_DATA(c) + i * sizeof(int), sizeof file);
				if (p->count < IPCD_I_FILES)
					p->files[p->count++] = file;
				else
					close(file);
			}
		}
	if (n == 0) {
		ipcd_i_drop_files(p);
		return -EPIPE;
	}
	p->size = (size_t)n;
	if (n < 8 || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || ipcd_i_get32(p, 4) != p->size || ipcd_i_get32(p, 0) >> 16 != IPCD_RING_VERSION) {
		ipcd_i_drop_files(p);
		return -EPROTO;
	}
	return 0;
}

/* The negative errno that an ERROR reply names; its text goes to m->text. */
static IPCD_I_COLD int ipcd_i_refusal(struct ipcd_i_member *m, struct ipcd_i_packet *p)
{
	if (p->size < 48)
		return -EPROTO;
	uint32_t status = ipcd_i_get32(p, 8);
	size_t length = p->size - 48;
	if (length > sizeof m->text - 1)
		length = sizeof m->text - 1;
	memcpy(m->text, (const char *)(const void *)p->bytes + 48, length);
	m->text[length] = 0;
	return status > 0 && status < 4096 ? -(int)status : -EPROTO;
}

/* Maps size bytes of a descriptor of which only its number is believed. NULL: errno says why not. */
static IPCD_I_COLD uint8_t *ipcd_i_map(int file, size_t size, bool writable)
{
	struct stat s;
	if (fstat(file, &s) != 0)
		return NULL;
	if (s.st_size < 0 || (uint64_t)s.st_size < size) { /* touching what is not there would be fatal */
		errno = EPROTO;
		return NULL;
	}
	void *at = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file, 0);
	if (at == MAP_FAILED)
		return NULL;
	madvise(at, size, MADV_DONTFORK);
	return (uint8_t *)at;
}

/* Allocates the pages of one's own memory now, so that one's own control group pays for them. */
static IPCD_I_COLD void ipcd_i_populate(uint8_t *memory, size_t size)
{
	if (madvise(memory, size, 23 /* MADV_POPULATE_WRITE, Linux 5.14 */) == 0)
		return;
	for (size_t i = 0; i < size; i += 4096) {
		volatile uint8_t *byte = memory + i;
		*byte = *byte;
	}
}

/* Puts a members page into use. 0, or a negative errno; the descriptor stays the caller's. */
static IPCD_I_COLD int ipcd_i_use_page(struct ipcd_i_member *m, int file)
{
	uint8_t *page = ipcd_i_map(file, IPCD_RING_MEMBERS_SIZE, false);
	if (page == NULL)
		return -errno;
	if (m->page != NULL)
		munmap((void *)(uintptr_t)m->page, IPCD_RING_MEMBERS_SIZE);
	m->page = page;
	return 0;
}

static inline int ipcd_i_apply(struct ipcd_i_member *m, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count);

/* Takes in a MEMBERS reply and confirms its descriptors. */
static IPCD_I_COLD int ipcd_i_take_members(struct ipcd_i_member *m, struct ipcd_i_packet *p)
{
	struct ipcd_ring_peer peers[IPCD_RING_MAX_LANES];
	size_t count = p->size >= 24 ? ipcd_i_get32(p, 16) : SIZE_MAX;
	if (count > IPCD_RING_MAX_LANES || p->size != 24 + 64 * count) {
		ipcd_i_drop_files(p);
		return -EPROTO;
	}
	uint64_t epoch = ipcd_i_get64(p, 8);
	bool partial = (ipcd_i_get32(p, 20) & 1) != 0, confirm = p->count > 0;
	for (size_t i = 0; i < count; i++) {
		size_t at = 24 + 64 * i;
		peers[i].id = ipcd_i_get64(p, at);
		peers[i].epoch = ipcd_i_get64(p, at + 8);
		peers[i].kind = ipcd_i_get32(p, at + 16);
		peers[i].slot = ipcd_i_get32(p, at + 20);
		peers[i].flags = ipcd_i_get32(p, at + 24);
		peers[i].size = ipcd_i_get64(p, at + 32);
		peers[i].capacity = ipcd_i_get64(p, at + 40);
		peers[i].max_frame = ipcd_i_get32(p, at + 48);
		peers[i].fd = (peers[i].flags & IPCD_RING_FD) != 0 ? ipcd_i_take_file(p) : -1;
	}
	ipcd_i_drop_files(p);
	int result = ipcd_i_apply(m, epoch, partial, peers, count);
	if (result == 0 && confirm) {
		ipcd_i_begin(p, IPCD_I_GOT, 8);
		result = ipcd_i_send(m->socket, p, -1);
	}
	return result;
}

/* Hangs up; the next attempt comes after a while, longer each time. */
static IPCD_I_COLD void ipcd_i_hang_up(struct ipcd_i_member *m, int64_t now)
{
	if (m->socket >= 0)
		close(m->socket);
	m->socket = -1;
	m->link = IPCD_I_DOWN;
	m->backoff = m->backoff == 0 ? 20 * IPCD_I_MS : m->backoff < IPCD_I_SECOND / 2 ? m->backoff * 2 : IPCD_I_SECOND;
	m->retry_at = now + m->backoff / 2 + (int64_t)(((uint64_t)now ^ m->id) % (uint64_t)(m->backoff / 2)); /* not all members at once */
}

/* Connects to attach.sock without waiting. The descriptor, or a negative errno. */
static IPCD_I_COLD int ipcd_i_connect(const char *path)
{
	struct sockaddr_un a;
	memset(&a, 0, sizeof a);
	a.sun_family = AF_UNIX;
	memcpy(a.sun_path, path, strlen(path)); /* its length was checked by ipcd_i_find_socket */
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0)
		return -errno;
	if (connect(s, (const struct sockaddr *)(const void *)&a, sizeof a) != 0) {
		int error = -errno;
		close(s);
		return error;
	}
	return s;
}

/* Connects again and asks to be adopted. */
static IPCD_I_COLD void ipcd_i_return(struct ipcd_i_member *m, struct ipcd_i_packet *p, int64_t now)
{
	m->socket = ipcd_i_connect(m->path);
	if (m->socket < 0) {
		ipcd_i_hang_up(m, now);
		return;
	}
	ipcd_i_begin(p, IPCD_I_ADOPT, 288);
	ipcd_i_put32(p, 8, m->role);
	ipcd_i_put32(p, 12, m->flags);
	ipcd_i_put64(p, 16, m->ring_id);
	ipcd_i_put64(p, 24, m->id);
	ipcd_i_put64(p, 32, m->granted);
	ipcd_i_put32(p, 40, m->slot);
	ipcd_i_put(p, 48, m->token, sizeof m->token);
	ipcd_i_put(p, 80, m->name, sizeof m->name);
	if (ipcd_i_send(m->socket, p, m->own) != 0) {
		ipcd_i_hang_up(m, now);
		return;
	}
	m->link = IPCD_I_ADOPTING;
	m->retry_at = now + 10 * IPCD_I_SECOND;
}

/* Takes in ADOPTED. 0, or a negative errno. */
static IPCD_I_COLD int ipcd_i_take_adopted(struct ipcd_i_member *m, struct ipcd_i_packet *p)
{
	int page = p->size == 48 && p->count == 1 ? ipcd_i_take_file(p) : -1;
	int result = page < 0 ? -EPROTO : ipcd_i_use_page(m, page);
	ipcd_i_drop_files(p);
	if (page >= 0)
		close(page);
	if (result != 0)
		return result;
	memcpy(m->token, (const uint8_t *)(const void *)p->bytes + 8, sizeof m->token);
	m->moved = true;
	ipcd_i_begin(p, IPCD_I_GOT, 8);
	return ipcd_i_send(m->socket, p, -1);
}

/* Handles the answer that was waited for, if it is here. True: it was. */
static IPCD_I_COLD bool ipcd_i_answer(struct ipcd_i_member *m, struct ipcd_i_packet *p, int64_t now)
{
	int result = ipcd_i_receive(m->socket, p);
	if (result == -EAGAIN) {
		if (m->link == IPCD_I_ADOPTING && now > m->retry_at)
			ipcd_i_hang_up(m, now);
		return false;
	}
	if (result == 0 && ipcd_i_kind(p) == IPCD_I_ERROR) {
		ipcd_i_drop_files(p);
		result = ipcd_i_refusal(m, p);
		if (result != -EAGAIN && result != -ESHUTDOWN && result != -EPROTO)
			m->dead = result; /* a definite answer: the ring is gone, or access is */
	} else if (result == 0 && m->link == IPCD_I_ADOPTING && ipcd_i_kind(p) == IPCD_I_ADOPTED) {
		result = ipcd_i_take_adopted(m, p);
		if (result == 0) {
			m->link = IPCD_I_UP;
			m->noticed = 0; /* the members are asked for again, whatever the epoch */
			m->backoff = 0;
		}
	} else if (result == 0 && m->link == IPCD_I_ASKED && ipcd_i_kind(p) == IPCD_I_MEMBERS_REPLY) {
		result = ipcd_i_take_members(m, p);
		if (result == 0)
			m->link = IPCD_I_UP;
	} else if (result == 0) {
		ipcd_i_drop_files(p);
		result = -EPROTO;
	}
	if (result != 0)
		ipcd_i_hang_up(m, now);
	return true;
}

/* Looks after the membership, without blocking. 0, or what ended it. */
static IPCD_I_COLD int ipcd_i_service(struct ipcd_i_member *m)
{
	uint64_t epoch = ipcd_i_strong64(m->page);
	int64_t now = ipcd_i_now();
	m->looked = now;
	if (m->dead != 0 || m->link == IPCD_I_ALONE) {
		m->noticed = epoch;
		return m->dead;
	}
	struct ipcd_i_packet p;
	for (int steps = 0; m->dead == 0 && steps < 8; steps++) {
		if (m->link == IPCD_I_DOWN) {
			m->noticed = epoch;
			if (now < m->retry_at)
				break;
			ipcd_i_return(m, &p, now);
			if (m->link == IPCD_I_DOWN)
				break;
		} else if (m->link == IPCD_I_UP && (m->noticed == 0 || epoch != m->known)) {
			ipcd_i_begin(&p, IPCD_I_MEMBERS, 16);
			ipcd_i_put64(&p, 8, m->noticed == 0 ? 0 : m->known);
			m->noticed = epoch;
			int sent = ipcd_i_send(m->socket, &p, -1);
			if (sent == -EAGAIN)
				break;
			if (sent != 0)
				ipcd_i_hang_up(m, now);
			else
				m->link = IPCD_I_ASKED;
		} else if (m->link == IPCD_I_UP) { /* nothing is to be done, nothing may come: only whether it hung up is of interest */
			m->noticed = epoch;
			char byte;
			ssize_t n = recv(m->socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
			if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
				ipcd_i_hang_up(m, now);
			break;
		} else {
			m->noticed = epoch;
			if (!ipcd_i_answer(m, &p, now))
				break;
			epoch = ipcd_i_strong64(m->page);
		}
	}
	return m->dead;
}

/* Whether an answer is awaited: then sleeps are short, for a futex and a socket cannot be slept on together. */
static inline bool ipcd_i_awaits(const struct ipcd_i_member *m) { return m->link == IPCD_I_ASKED || m->link == IPCD_I_ADOPTING; }

/* Finds the path of attach.sock. 0, or -EINVAL. */
static IPCD_I_COLD int ipcd_i_find_socket(char *path, size_t size, const char *given)
{
	const char *from = given != NULL && *given != 0 ? given : getenv("IPCD_ATTACH");
	int n;
	if (from != NULL && *from != 0) {
		if (strncmp(from, "unix://", 7) == 0)
			from += 7;
		n = snprintf(path, size, "%s", from);
		return n > 0 && (size_t)n < size ? 0 : -EINVAL;
	}
	const char *address = getenv("IPCD_ADDRESS"), *runtime = getenv("XDG_RUNTIME_DIR");
	if (address != NULL && *address != 0) {
		if (strncmp(address, "unix:", 5) == 0)
			address += strncmp(address, "unix://", 7) == 0 ? 7 : 5;
		const char *slash = strrchr(address, '/');
		if (*address == '/' && slash != NULL) {
			n = snprintf(path, size, "%.*s/attach.sock", (int)(slash - address), address);
			return n > 0 && (size_t)n < size ? 0 : -EINVAL;
		}
	} else if (runtime != NULL && *runtime == '/' && geteuid() != 0) {
		n = snprintf(path, size, "%s/ipcd/attach.sock", runtime);
		if (n > 0 && (size_t)n < size && access(path, F_OK) == 0)
			return 0;
	}
	n = snprintf(path, size, "/run/ipcd/attach.sock");
	return n > 0 && (size_t)n < size ? 0 : -EINVAL;
}

/* Sends a request (unless size is 0) and waits for its answer, which must be of a kind. */
static IPCD_I_COLD int ipcd_i_call(struct ipcd_i_member *m, struct ipcd_i_packet *p, uint32_t kind, int64_t deadline)
{
	int result = ipcd_i_send(m->socket, p, -1);
	if (result != 0)
		return result;
	for (;;) {
		result = ipcd_i_receive(m->socket, p);
		if (result == 0)
			break;
		if (result != -EAGAIN)
			return result;
		int64_t left = deadline - ipcd_i_now();
		if (left <= 0)
			return -ETIMEDOUT;
		struct pollfd f;
		f.fd = m->socket;
		f.events = POLLIN;
		f.revents = 0;
		if (poll(&f, 1, left > IPCD_I_SECOND ? 1000 : (int)(left / IPCD_I_MS) + 1) < 0)
			return -errno;
	}
	if (ipcd_i_kind(p) == kind)
		return 0;
	ipcd_i_drop_files(p);
	return ipcd_i_kind(p) == IPCD_I_ERROR ? ipcd_i_refusal(m, p) : -EPROTO;
}

/* Frees what the membership holds, but not the handle itself. */
static IPCD_I_COLD void ipcd_i_end(struct ipcd_i_member *m)
{
	if (m->memory != NULL)
		munmap(m->memory, m->size); /* before DETACH, so that the daemon finds no writer any more */
	if (m->page != NULL)
		munmap((void *)(uintptr_t)m->page, IPCD_RING_MEMBERS_SIZE);
	if (m->own >= 0)
		close(m->own);
	if (m->socket >= 0 && m->link == IPCD_I_UP) {
		struct ipcd_i_packet p;
		struct pollfd f;
		ipcd_i_begin(&p, IPCD_I_DETACH, 8);
		f.fd = m->socket;
		f.events = POLLIN;
		f.revents = 0;
		if (ipcd_i_send(m->socket, &p, -1) == 0)
			poll(&f, 1, 100); /* so that who closes and opens again does not meet itself in the budgets */
	}
	if (m->socket >= 0)
		close(m->socket);
	memset(m, 0, sizeof *m);
	m->socket = m->own = -1;
}

/* Begins a handle's membership. */
static IPCD_I_COLD void ipcd_i_start(struct ipcd_i_member *m, uint32_t role, const struct ipcd_ring_joined *j)
{
	m->role = role;
	m->ring_id = j->ring_id;
	m->id = j->id;
	m->epoch = j->epoch;
	m->slot = j->slot;
	m->flags = j->flags & IPCD_RING_LOSSLESS;
	m->spins = ipcd_i_spins();
}

/*
 * Attaches: from the connection to the memory that is mapped and announced. *j is filled; the first MEMBERS is
 * still to be asked for.
 */
static IPCD_I_COLD int ipcd_i_attach(struct ipcd_i_member *m, struct ipcd_ring_joined *j, uint32_t role,
	const char *name, const struct ipcd_ring_options *o, int64_t deadline)
{
	size_t length = name == NULL ? 0 : strlen(name);
	if (length < 2 || length >= sizeof m->name || name[0] != '/') {
		snprintf(m->text, sizeof m->text, "a ring's name starts with a slash and has up to %d bytes, such as /ticks", (int)sizeof m->name - 1);
		return -EINVAL;
	}
	if (ipcd_i_find_socket(m->path, sizeof m->path, o->socket) != 0) {
		snprintf(m->text, sizeof m->text, "the path of a socket has 1 to %d bytes: set IPCD_ATTACH to that of the daemon's attach.sock", (int)sizeof m->path - 1);
		return -EINVAL;
	}
	memcpy(m->name, name, length);
	while ((m->socket = ipcd_i_connect(m->path)) == -EAGAIN && ipcd_i_now() < deadline) /* its queue of connections is full */
		ipcd_i_sleep(10 * IPCD_I_MS);
	if (m->socket < 0) {
		int result = m->socket;
		m->socket = -1;
		snprintf(m->text, sizeof m->text, "no daemon answers at %s: %s", m->path, strerror(-result));
		return result;
	}

	struct ipcd_i_packet p;
	ipcd_i_begin(&p, IPCD_I_ATTACH, 224);
	ipcd_i_put32(&p, 8, role);
	ipcd_i_put32(&p, 12, role == IPCD_RING_CONSUMER && o->lossless ? IPCD_RING_LOSSLESS : 0);
	ipcd_i_put(&p, 16, m->name, sizeof m->name);
	int result = ipcd_i_call(m, &p, IPCD_I_MEMORY, deadline);
	if (result != 0)
		return result;
	int memory = p.size == 72 && p.count == 1 ? ipcd_i_take_file(&p) : -1;
	ipcd_i_drop_files(&p);
	if (memory < 0)
		return -EPROTO;
	j->ring_id = ipcd_i_get64(&p, 8);
	j->id = ipcd_i_get64(&p, 16);
	j->slot = ipcd_i_get32(&p, 24);
	j->flags = ipcd_i_get32(&p, 28);
	j->capacity = ipcd_i_get64(&p, 32);
	j->max_frame = ipcd_i_get32(&p, 40);
	j->stall_ns = ipcd_i_get64(&p, 48);
	j->epoch = ipcd_i_get64(&p, 56);
	uint64_t size = ipcd_i_get64(&p, 64);
	uint64_t expected = role == IPCD_RING_CONSUMER ? IPCD_RING_CONSUMER_SIZE : IPCD_RING_LANE_DATA + j->capacity;
	if (size == expected && size <= IPCD_RING_LANE_DATA + IPCD_RING_CAPACITY_MAX) {
		m->memory = ipcd_i_map(memory, (size_t)size, true);
		m->size = (size_t)size;
	} else {
		errno = EPROTO;
	}
	result = m->memory != NULL ? 0 : -errno;
	close(memory); /* the daemon seals the memory as soon as nobody else can map it writable */
	if (result != 0)
		return result;
	ipcd_i_populate(m->memory, m->size);

	ipcd_i_begin(&p, IPCD_I_GOT, 8);
	result = ipcd_i_send(m->socket, &p, -1);
	ipcd_i_begin(&p, IPCD_I_READY, 8);
	if (result == 0)
		result = ipcd_i_call(m, &p, IPCD_I_ATTACHED, deadline);
	if (result != 0)
		return result;
	if (p.size != 48 || p.count != 2) {
		ipcd_i_drop_files(&p);
		return -EPROTO;
	}
	m->own = ipcd_i_take_file(&p);
	int page = ipcd_i_take_file(&p);
	memcpy(m->token, (const uint8_t *)(const void *)p.bytes + 8, sizeof m->token);
	m->granted = j->epoch; /* the token is for this one */
	if (role == IPCD_RING_CONSUMER && ipcd_i_get64(&p, 40) > j->epoch)
		j->epoch = ipcd_i_get64(&p, 40); /* it joined only now: lanes may have come meanwhile */
	result = ipcd_i_use_page(m, page);
	close(page);
	ipcd_i_begin(&p, IPCD_I_GOT, 8);
	return result != 0 ? result : ipcd_i_send(m->socket, &p, -1);
}

/* Asks for the members for the first time, and waits for them. */
static IPCD_I_COLD int ipcd_i_first_members(struct ipcd_i_member *m, int64_t deadline)
{
	struct ipcd_i_packet p;
	ipcd_i_begin(&p, IPCD_I_MEMBERS, 16);
	m->noticed = ipcd_i_strong64(m->page);
	int result = ipcd_i_call(m, &p, IPCD_I_MEMBERS_REPLY, deadline);
	if (result == 0)
		result = ipcd_i_take_members(m, &p);
	if (result == 0)
		m->link = IPCD_I_UP;
	return result;
}

/* Tells the caller of open what went wrong, in words. */
static IPCD_I_COLD int ipcd_i_explain(const struct ipcd_i_member *m, const struct ipcd_ring_options *o, int result)
{
	if (o->text != NULL && o->text_size > 0)
		snprintf(o->text, o->text_size, "%s", result == 0 ? "" : m->text[0] != 0 ? m->text : strerror(-result));
	return result;
}

/* ---- Producers ---- */

#define IPCD_I_BUCKETS 10 /* seconds over which a consumer's stalls are added up */

enum { IPCD_I_WAKES, IPCD_I_ELIDED, IPCD_I_BLOCKS, IPCD_I_BLOCKED_NS, IPCD_I_EVICTIONS, IPCD_I_WRITER_BACKSTOPS }; /* counters of a lane */

/* A consumer, as its producer sees it. */
struct ipcd_i_reader {
	const uint8_t *parked; /* the words that are looked at, within memory */
	uint32_t woke;         /* the generation that this producer last woke */
	uint32_t slot;
	const uint8_t *memory;
	size_t size;
	uint64_t id, epoch;
	bool gates, known;     /* it may hold this lane back; its cursor was seen once */
	uint64_t cursor;       /* the last that was believed */
	bool holds;            /* at the last look */
	int64_t second[IPCD_I_BUCKETS], held[IPCD_I_BUCKETS]; /* ns for which it held the lane back, by seconds of the clock */
};

struct ipcd_ring_producer {
	struct ipcd_i_member m; /* first: see ipcd_i_apply */
	uint64_t position;      /* where the next frame begins */
	uint64_t published, oldest, sequence;
	uint64_t capacity, max_frame;
	unsigned readers_count;
	struct ipcd_i_reader *readers; /* IPCD_RING_MAX_CONSUMERS of them */
	uint64_t claimed;              /* position of the open claim's frame */
	size_t claim_size;
	bool claim_open, untimed;
	uint32_t wake, blocked;
	uint64_t stall_ns;
	int64_t time_ns;       /* of the last frame that has one */
	uint64_t ticks;        /* when time_ns was asked for */
	int64_t last_look;     /* the same clock, when the membership was last looked after */
	unsigned publishes;    /* since then */
	int64_t newer_since;   /* since when the epoch has been newer than the members that are mapped; 0: it is not */
	int64_t suspicious_until;
};

static inline uint8_t *ipcd_i_data(const struct ipcd_ring_producer *p, uint64_t position)
{
	return p->m.memory + IPCD_RING_LANE_DATA + (position & (p->capacity - 1));
}

static inline uint8_t *ipcd_i_lane_counters(const struct ipcd_ring_producer *p) { return p->m.memory + IPCD_RING_LANE_COUNTERS; }

static IPCD_I_COLD void ipcd_i_wake_readers(struct ipcd_ring_producer *p)
{
	uint8_t *word = p->m.memory + IPCD_RING_LANE_WAKE;
	ipcd_i_strong_store32(word, ++p->wake);
	ipcd_i_wake(word);
	ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_WAKES, 1);
}

/* A member came or went: whoever it is may sleep on this lane, so all are woken. Then the members are asked for. */
static IPCD_I_COLD void ipcd_i_wake_strangers(struct ipcd_ring_producer *p, uint64_t epoch)
{
	ipcd_i_wake_readers(p);
	if (epoch != p->m.noticed || ipcd_i_awaits(&p->m))
		ipcd_i_service(&p->m);
}

static IPCD_I_COLD void ipcd_i_look_after(struct ipcd_ring_producer *p)
{
	p->publishes = 0;
	p->last_look = p->time_ns;
	ipcd_i_service(&p->m);
}

/* Makes everything before position readable, and wakes who sleeps. The loads must not pass the store: SEQ_CST. */
static inline void ipcd_i_publish_all(struct ipcd_ring_producer *p)
{
	ipcd_i_store64(p->m.memory + IPCD_RING_LANE_SEQUENCE, p->sequence);
	ipcd_i_strong_store64(p->m.memory + IPCD_RING_LANE_PUBLISHED, p->position);
	p->published = p->position;
	uint64_t epoch = ipcd_i_strong64(p->m.page);
	if (IPCD_I_UNLIKELY(epoch != p->m.known)) {
		ipcd_i_wake_strangers(p, epoch);
	} else {
		bool asleep = false, woken = false;
		for (unsigned i = 0; i < p->readers_count; i++) {
			struct ipcd_i_reader *r = &p->readers[i];
			uint32_t generation = ipcd_i_strong32(r->parked);
			if (IPCD_I_UNLIKELY((generation & 1) != 0)) {
				if (generation != r->woke)
					asleep = true;
				else
					woken = true;
				r->woke = generation;
			}
		}
		if (IPCD_I_UNLIKELY(asleep))
			ipcd_i_wake_readers(p);
		else if (IPCD_I_UNLIKELY(woken))
			ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_ELIDED, 1);
	}
	/* Now and then: has the daemon gone, is an answer there? */
	p->publishes++;
	if (IPCD_I_UNLIKELY((uint64_t)(p->time_ns - p->last_look) > (uint64_t)IPCD_I_BACKSTOP || p->publishes > 65536))
		ipcd_i_look_after(p);
}

/* The position behind the frame at `at`, which this producer wrote itself. 0: its memory was written by somebody else. */
static inline uint64_t ipcd_i_behind(const struct ipcd_ring_producer *p, uint64_t at)
{
	const uint8_t *frame = ipcd_i_data(p, at);
	uint64_t room = p->capacity - (at & (p->capacity - 1));
	uint64_t both = ipcd_i_load64(frame + 8);
	uint64_t next = at + ((both >> 32 & IPCD_RING_PAD) != 0 ? room : ipcd_i_frame_size(both & UINT32_MAX));
	return next <= p->published && next - at <= room ? next : 0;
}

/* Moves oldest to the first frame at or past need, then on by a stride, but not past limit. 0, -EAGAIN: limit is in the way, -EBADMSG. */
static inline int ipcd_i_forget(struct ipcd_ring_producer *p, uint64_t need, uint64_t limit)
{
	uint64_t oldest = p->oldest, generous = need + p->capacity / 64;
	while (oldest < generous) {
		uint64_t next = oldest < p->published ? ipcd_i_behind(p, oldest) : 0;
		if (next == 0 && oldest < need)
			return -EBADMSG;
		if (next > limit && oldest < need)
			return -EAGAIN;
		if (next == 0 || next > limit || (oldest >= need && next > generous))
			break;
		oldest = next;
	}
	p->oldest = oldest;
	ipcd_i_release64(p->m.memory + IPCD_RING_LANE_OLDEST, oldest);
	__atomic_thread_fence(__ATOMIC_RELEASE); /* who sees a byte that is written from now on, sees the new oldest, too */
	return 0;
}

/* Looks at all gating cursors: how far oldest may go, and who does not let it reach need. */
static IPCD_I_COLD uint64_t ipcd_i_limit(struct ipcd_ring_producer *p, uint64_t need)
{
	uint64_t limit = p->published;
	for (unsigned i = 0; i < p->readers_count; i++) {
		struct ipcd_i_reader *r = &p->readers[i];
		r->holds = false;
		if (!r->gates)
			continue;
		const uint8_t *line = r->memory + IPCD_RING_CONSUMER_LINES + 128 * p->m.slot;
		if (ipcd_i_acquire64(line) == p->m.id) {
			uint64_t cursor = ipcd_i_strong64(line + 8);
			if (cursor > p->published)
				cursor = p->published;
			if (!r->known || cursor > r->cursor)
				r->cursor = cursor;
			r->known = true;
		} else if (r->epoch >= p->m.epoch) {
			continue; /* it joined after the lane and has not taken it up: it does not hold yet */
		}
		r->holds = r->cursor < need;
		if (r->cursor < limit)
			limit = r->cursor;
	}
	return limit;
}

/* Charges a span to those who held the lane back, and evicts who did so for too long. */
static IPCD_I_COLD void ipcd_i_charge(struct ipcd_ring_producer *p, int64_t from, int64_t to)
{
	bool evicted = false;
	int64_t second = to / IPCD_I_SECOND;
	if (to - from > 2 * IPCD_I_BACKSTOP) /* only if everybody was stopped: a container, a virtual machine */
		from = to - 2 * IPCD_I_BACKSTOP;
	for (unsigned i = 0; i < p->readers_count; i++) {
		struct ipcd_i_reader *r = &p->readers[i];
		if (!r->gates || !r->holds)
			continue;
		unsigned bucket = (unsigned)(second % IPCD_I_BUCKETS);
		if (r->second[bucket] != second) {
			r->second[bucket] = second;
			r->held[bucket] = 0;
		}
		r->held[bucket] += to - from;
		int64_t sum = 0;
		for (int b = 0; b < IPCD_I_BUCKETS; b++)
			if (r->second[b] > second - IPCD_I_BUCKETS)
				sum += r->held[b];
		if ((uint64_t)sum < p->stall_ns)
			continue;
		r->gates = r->holds = false;
		evicted = true;
		ipcd_i_strong_store64(p->m.memory + IPCD_RING_LANE_EVICTED + 8 * r->slot, r->id);
		ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_EVICTIONS, 1);
	}
	if (evicted)
		ipcd_i_wake_readers(p);
}

/* How long to sleep at most: until somebody has held the lane back for too long. */
static IPCD_I_COLD int64_t ipcd_i_patience(const struct ipcd_ring_producer *p, int64_t now)
{
	int64_t longest = IPCD_I_BACKSTOP;
	if (ipcd_i_awaits(&p->m) || now < p->suspicious_until)
		longest = IPCD_I_MS;
	for (unsigned i = 0; i < p->readers_count; i++) {
		const struct ipcd_i_reader *r = &p->readers[i];
		int64_t sum = 0;
		for (int b = 0; b < IPCD_I_BUCKETS; b++)
			if (r->second[b] > now / IPCD_I_SECOND - IPCD_I_BUCKETS)
				sum += r->held[b];
		if (r->holds && (int64_t)p->stall_ns - sum < longest)
			longest = (int64_t)p->stall_ns - sum;
	}
	return longest > IPCD_I_MS / 10 ? longest : IPCD_I_MS / 10;
}

/* Whether the members of the current epoch are mapped; if not, they are asked for, and waited for up to 100 ms in all. */
static IPCD_I_COLD bool ipcd_i_current(struct ipcd_ring_producer *p, int64_t now)
{
	if (ipcd_i_strong64(p->m.page) != p->m.known)
		ipcd_i_service(&p->m);
	if (p->m.link == IPCD_I_ALONE || ipcd_i_strong64(p->m.page) == p->m.known) {
		p->newer_since = 0;
		return true;
	}
	if (p->newer_since == 0)
		p->newer_since = now;
	return now - p->newer_since >= IPCD_I_BACKSTOP; /* a daemon that does not answer must not stop the data */
}

/* Sleeps until a consumer that is in the way moves on, or a member comes or goes. 0, or -EINTR. */
static IPCD_I_COLD int ipcd_i_block(struct ipcd_ring_producer *p, uint64_t target, int64_t until)
{
	struct ipcd_i_word words[IPCD_I_WORDS];
	const uint8_t *wakes[IPCD_I_WORDS];
	uint32_t values[IPCD_I_WORDS];
	unsigned count = 0;
	uint64_t epoch = ipcd_i_strong64(p->m.page);
	for (unsigned i = 0; i < p->readers_count; i++)
		if (p->readers[i].gates && p->readers[i].holds) {
			wakes[count] = p->readers[i].memory + IPCD_RING_CONSUMER_WAKE;
			values[count] = ipcd_i_strong32(wakes[count]);
			ipcd_i_watch(&words[count], wakes[count], values[count]);
			count++;
		}
	unsigned holders = count;
	ipcd_i_watch(&words[count++], p->m.page, (uint32_t)epoch);

	uint8_t *blocked = p->m.memory + IPCD_RING_LANE_BLOCKED;
	ipcd_i_strong_store32(blocked, ++p->blocked);
	int result = 0;
	if (ipcd_i_limit(p, target) < target && (epoch == p->m.known || p->m.noticed == epoch) && ipcd_i_strong64(p->m.page) == epoch) {
		result = ipcd_i_wait(words, count, until);
		if (result == -ETIMEDOUT && ipcd_i_limit(p, target) >= target) {
			/* Room, and nobody said so? A consumer that runs does within a moment. */
			bool told = holders == 0, moved = false;
			for (unsigned i = 0; i < holders; i++)
				moved = moved || ipcd_i_strong32(wakes[i]) != values[i];
			if (moved) { /* it was said, but not here: the word's sleepers were moved, or this thread did not run */
				told = told || ipcd_i_now() - until > IPCD_I_MS;
			} else {
				ipcd_i_sleep(IPCD_I_MS);
				told = told || ipcd_i_strong64(p->m.page) != epoch;
				for (unsigned i = 0; i < holders; i++)
					told = told || ipcd_i_strong32(wakes[i]) != values[i];
			}
			if (!told) {
				ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_WRITER_BACKSTOPS, 1);
				p->suspicious_until = ipcd_i_now() + IPCD_I_SUSPICION;
			}
		}
	}
	ipcd_i_strong_store32(blocked, ++p->blocked);
	return result == -EINTR ? -EINTR : 0;
}

/* Makes room in a lossless lane: oldest never passes a gating cursor. */
static IPCD_I_COLD int ipcd_i_wait_for_room(struct ipcd_ring_producer *p, uint64_t need, int64_t timeout_ns)
{
	uint64_t target = p->oldest; /* the first frame at or past need */
	while (target < need) {
		target = target < p->published ? ipcd_i_behind(p, target) : 0;
		if (target == 0)
			return -EBADMSG;
	}
	int64_t begin = ipcd_i_now(), now = begin, charged = begin, deadline = timeout_ns == 0 ? 0 : ipcd_i_deadline(timeout_ns);
	bool blocked = false;
	int result;
	for (unsigned look = 0;; look++) {
		uint64_t limit = 0;
		bool current = ipcd_i_current(p, now);
		if (p->m.dead != 0) {
			result = p->m.dead;
			break;
		}
		if (current) {
			limit = ipcd_i_limit(p, target);
			if (limit >= target) {
				result = ipcd_i_forget(p, need, limit);
				break;
			}
		}
		if (blocked && current) {
			ipcd_i_charge(p, charged, now);
			limit = ipcd_i_limit(p, target); /* without those who were evicted */
			if (limit >= target)
				continue;
		}
		charged = now;
		if (timeout_ns == 0) {
			result = -EAGAIN;
			break;
		}
		if (now >= deadline) {
			result = -ETIMEDOUT;
			break;
		}
		if (!blocked)
			ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_BLOCKS, 1);
		blocked = true;
		if (look < p->m.spins) {
			ipcd_i_pause();
		} else if (!current) {
			ipcd_i_sleep(IPCD_I_MS / 10);
		} else {
			int64_t until = now + ipcd_i_patience(p, now);
			result = ipcd_i_block(p, target, until < deadline ? until : deadline);
			if (result != 0)
				break;
		}
		now = ipcd_i_now();
	}
	if (blocked)
		ipcd_i_count(ipcd_i_lane_counters(p), IPCD_I_BLOCKED_NS, (uint64_t)(ipcd_i_now() - begin));
	return result;
}

static inline int ipcd_i_make_room(struct ipcd_ring_producer *p, uint64_t need, int64_t timeout_ns)
{
	if (IPCD_I_LIKELY((p->m.flags & IPCD_RING_LOSSLESS) == 0))
		return ipcd_i_forget(p, need, p->published);
	if (p->position != p->published)
		ipcd_i_publish_all(p); /* of a batch: nobody makes room for what he cannot see is wanted */
	return ipcd_i_wait_for_room(p, need, timeout_ns);
}

/* Finds room for a frame of so much payload at the position, with a PAD if it would cross the end. */
static inline int ipcd_i_reserve(struct ipcd_ring_producer *p, int64_t type, uint64_t payload, int64_t timeout_ns)
{
	if (IPCD_I_UNLIKELY(p->m.dead != 0))
		return p->m.dead;
	if (IPCD_I_UNLIKELY(type <= 0))
		return -EINVAL;
	if (IPCD_I_UNLIKELY(p->claim_open))
		return -EBUSY;
	if (IPCD_I_UNLIKELY(payload > p->max_frame - IPCD_RING_FRAME_HEADER))
		return -EMSGSIZE;
	uint64_t size = ipcd_i_frame_size(payload);
	uint64_t room = p->capacity - (p->position & (p->capacity - 1));
	uint64_t pad = room < size ? room : 0;
	uint64_t end = p->position + pad + size;
	if (end - p->oldest > p->capacity) {
		int result = ipcd_i_make_room(p, end - p->capacity, timeout_ns);
		if (IPCD_I_UNLIKELY(result != 0))
			return result;
	}
	if (IPCD_I_UNLIKELY(pad != 0)) {
		uint8_t *frame = ipcd_i_data(p, p->position);
		ipcd_i_store64(frame, 0);
		ipcd_i_store64(frame + 8, (uint64_t)IPCD_RING_PAD << 32 | (pad - IPCD_RING_FRAME_HEADER));
		ipcd_i_store64(frame + 16, 0);
		ipcd_i_store64(frame + 24, 0);
		p->position += pad;
	}
	return 0;
}

/* Writes the header of the frame at the position, behind which the position moves. It is not published yet. */
static inline void ipcd_i_finish(struct ipcd_ring_producer *p, int64_t type, size_t size, int64_t time_ns)
{
	uint8_t *frame = ipcd_i_data(p, p->position);
	ipcd_i_store64(frame, ++p->sequence);
	ipcd_i_store64(frame + 8, size);
	ipcd_i_store64(frame + 16, (uint64_t)type);
	ipcd_i_store64(frame + 24, (uint64_t)time_ns);
	p->position += ipcd_i_frame_size(size);
}

/* The time for a frame. Asking the system takes longer than publishing: within a burst an answer is good for a microsecond or so. */
static inline int64_t ipcd_i_time(struct ipcd_ring_producer *p)
{
	if (p->untimed)
		return 0;
	uint64_t ticks = ipcd_i_ticks();
	if (ticks - p->ticks >= IPCD_I_TICKS) { /* also if the counter went back, on another processor */
		p->time_ns = ipcd_i_clock(CLOCK_REALTIME);
		p->ticks = ticks;
	}
	return p->time_ns;
}

static inline int ipcd_ring_publish_wait(struct ipcd_ring_producer *p, int64_t type,
	const void *payload, size_t size, int64_t timeout_ns)
{
	int result = ipcd_i_reserve(p, type, size, timeout_ns);
	if (IPCD_I_UNLIKELY(result != 0))
		return result;
	if (size > 0)
		memcpy(ipcd_i_data(p, p->position) + IPCD_RING_FRAME_HEADER, payload, size);
	ipcd_i_finish(p, type, size, ipcd_i_time(p));
	ipcd_i_publish_all(p);
	return 0;
}

static inline int ipcd_ring_publish(struct ipcd_ring_producer *p, int64_t type, const void *payload, size_t size)
{
	return ipcd_ring_publish_wait(p, type, payload, size, -1);
}

static inline int ipcd_ring_try_publish(struct ipcd_ring_producer *p, int64_t type, const void *payload, size_t size)
{
	return ipcd_ring_publish_wait(p, type, payload, size, 0);
}

static inline int ipcd_ring_publishv(struct ipcd_ring_producer *p, int64_t type,
	const struct iovec *parts, int count, int64_t timeout_ns)
{
	size_t size = 0;
	if (count < 0)
		return -EINVAL;
	for (int i = 0; i < count; i++) {
		if (parts[i].iov_len > p->max_frame - size) /* more than fits, and the sum cannot overflow */
			return -EMSGSIZE;
		size += parts[i].iov_len;
	}
	int result = ipcd_i_reserve(p, type, size, timeout_ns);
	if (IPCD_I_UNLIKELY(result != 0))
		return result;
	uint8_t *to = ipcd_i_data(p, p->position) + IPCD_RING_FRAME_HEADER;
	for (int i = 0; i < count; i++)
		if (parts[i].iov_len > 0) {
			memcpy(to, parts[i].iov_base, parts[i].iov_len);
			to += parts[i].iov_len;
		}
	ipcd_i_finish(p, type, size, ipcd_i_time(p));
	ipcd_i_publish_all(p);
	return 0;
}

static inline int64_t ipcd_ring_publish_batch(struct ipcd_ring_producer *p,
	const struct ipcd_ring_item *items, size_t count, int64_t timeout_ns)
{
	int64_t time_ns = count > 0 ? ipcd_i_time(p) : 0;
	for (size_t i = 0; i < count; i++) {
		int result = ipcd_i_reserve(p, items[i].type, items[i].size, timeout_ns);
		if (IPCD_I_UNLIKELY(result != 0)) {
			if (p->position != p->published && i > 0)
				ipcd_i_publish_all(p);
			return i > 0 ? (int64_t)i : result;
		}
		if (items[i].size > 0)
			memcpy(ipcd_i_data(p, p->position) + IPCD_RING_FRAME_HEADER, items[i].payload, items[i].size);
		ipcd_i_finish(p, items[i].type, items[i].size, time_ns);
		if (p->position - p->published >= p->capacity / 4) /* oldest must stay behind published */
			ipcd_i_publish_all(p);
	}
	if (p->position != p->published)
		ipcd_i_publish_all(p);
	return (int64_t)count;
}

static inline int ipcd_ring_claim(struct ipcd_ring_producer *p, size_t size, void **payload, int64_t timeout_ns)
{
	int result = ipcd_i_reserve(p, 1, size, timeout_ns);
	if (result != 0)
		return result;
	p->claim_open = true;
	p->claim_size = size;
	*payload = ipcd_i_data(p, p->position) + IPCD_RING_FRAME_HEADER;
	return 0;
}

static inline int ipcd_ring_commit(struct ipcd_ring_producer *p, int64_t type, size_t size)
{
	if (!p->claim_open || size > p->claim_size || type <= 0)
		return -EINVAL;
	p->claim_open = false;
	ipcd_i_finish(p, type, size, ipcd_i_time(p));
	ipcd_i_publish_all(p);
	return 0;
}

static inline void ipcd_ring_abort(struct ipcd_ring_producer *p)
{
	if (p->claim_open)
		p->position = p->published; /* what was never published was never there */
	p->claim_open = false;
}

static inline size_t ipcd_ring_max_payload(const struct ipcd_ring_producer *p) { return (size_t)p->max_frame - IPCD_RING_FRAME_HEADER; }
static inline uint64_t ipcd_ring_sequence(const struct ipcd_ring_producer *p) { return p->sequence; }
static inline uint64_t ipcd_ring_lane(const struct ipcd_ring_producer *p) { return p->m.id; }
static inline const char *ipcd_ring_producer_text(const struct ipcd_ring_producer *p) { return p->m.text; }

static inline void ipcd_ring_producer_get_stats(const struct ipcd_ring_producer *p, struct ipcd_ring_producer_stats *s)
{
	const uint8_t *counters = ipcd_i_lane_counters(p);
	s->lane = p->m.id;
	s->sequence = p->sequence;
	s->published = p->published;
	s->oldest = p->oldest;
	s->wakes = ipcd_i_load64(counters + 8 * IPCD_I_WAKES);
	s->elided = ipcd_i_load64(counters + 8 * IPCD_I_ELIDED);
	s->blocks = ipcd_i_load64(counters + 8 * IPCD_I_BLOCKS);
	s->blocked_ns = ipcd_i_load64(counters + 8 * IPCD_I_BLOCKED_NS);
	s->evictions = ipcd_i_load64(counters + 8 * IPCD_I_EVICTIONS);
	s->backstops = ipcd_i_load64(counters + 8 * IPCD_I_WRITER_BACKSTOPS);
	s->consumers = p->readers_count;
}

static inline int ipcd_ring_producer_service(struct ipcd_ring_producer *p) { return ipcd_i_service(&p->m); }

static IPCD_I_COLD void ipcd_i_drop_reader(struct ipcd_ring_producer *p, unsigned i)
{
	munmap((void *)(uintptr_t)p->readers[i].memory, p->readers[i].size);
	p->readers[i] = p->readers[--p->readers_count];
}

static IPCD_I_COLD int ipcd_i_add_reader(struct ipcd_ring_producer *p, const struct ipcd_ring_peer *peer)
{
	if (peer->slot >= IPCD_RING_MAX_CONSUMERS || peer->size != IPCD_RING_CONSUMER_SIZE || p->readers_count == IPCD_RING_MAX_CONSUMERS)
		return -EPROTO;
	uint8_t *memory = ipcd_i_map(peer->fd, IPCD_RING_CONSUMER_SIZE, false);
	if (memory == NULL)
		return -errno;
	struct ipcd_i_reader *r = &p->readers[p->readers_count++];
	memset(r, 0, sizeof *r);
	r->memory = memory;
	r->size = IPCD_RING_CONSUMER_SIZE;
	r->parked = memory + IPCD_RING_CONSUMER_PARKED(peer->slot);
	r->slot = peer->slot;
	r->id = peer->id;
	r->epoch = peer->epoch;
	r->gates = (p->m.flags & IPCD_RING_LOSSLESS) != 0 && (peer->flags & IPCD_RING_LOSSLESS) != 0 &&
		ipcd_i_load64(p->m.memory + IPCD_RING_LANE_EVICTED + 8 * peer->slot) != peer->id;
	return 0;
}

static IPCD_I_COLD int ipcd_i_offer_readers(struct ipcd_ring_producer *p, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count)
{
	int result = 0;
	for (unsigned i = 0; !partial && i < p->readers_count;) {
		bool there = false;
		for (size_t j = 0; j < count; j++)
			there = there || (peers[j].kind == IPCD_RING_KIND_CONSUMER && peers[j].id == p->readers[i].id);
		if (there)
			i++;
		else
			ipcd_i_drop_reader(p, i);
	}
	for (size_t j = 0; j < count; j++) {
		bool there = peers[j].kind != IPCD_RING_KIND_CONSUMER || peers[j].fd < 0;
		for (unsigned i = 0; i < p->readers_count; i++)
			there = there || p->readers[i].id == peers[j].id;
		if (!there && result == 0)
			result = ipcd_i_add_reader(p, &peers[j]);
		if (peers[j].fd >= 0)
			close(peers[j].fd);
	}
	if (result == 0) {
		p->m.known = epoch;
		p->newer_since = 0;
		ipcd_i_release64(p->m.memory + IPCD_RING_LANE_SEEN, epoch);
		if (p->m.moved) /* consumers that it could not know of may have gone to sleep while it published */
			ipcd_i_wake_readers(p);
		p->m.moved = false;
	}
	return result;
}

static inline int ipcd_ring_producer_offer(struct ipcd_ring_producer *p, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count)
{
	return ipcd_i_offer_readers(p, epoch, partial, peers, count);
}

static inline void ipcd_ring_producer_close(struct ipcd_ring_producer *p)
{
	if (p == NULL)
		return;
	while (p->readers_count > 0)
		ipcd_i_drop_reader(p, 0);
	ipcd_i_end(&p->m);
	free(p->readers);
	free(p);
}

static IPCD_I_COLD struct ipcd_ring_producer *ipcd_i_new_producer(void)
{
	struct ipcd_ring_producer *p = (struct ipcd_ring_producer *)calloc(1, sizeof *p);
	if (p == NULL)
		return NULL;
	p->m.socket = p->m.own = -1;
	p->readers = (struct ipcd_i_reader *)calloc(IPCD_RING_MAX_CONSUMERS, sizeof *p->readers);
	if (p->readers == NULL) {
		free(p);
		return NULL;
	}
	return p;
}

/* Takes over what the daemon said of the lane. The memory is fresh, or was left by a handle that was closed in order. */
static IPCD_I_COLD int ipcd_i_set_up_producer(struct ipcd_ring_producer *p,
	const struct ipcd_ring_joined *j, const struct ipcd_ring_options *o)
{
	ipcd_i_start(&p->m, IPCD_RING_PRODUCER, j);
	if (j->capacity < IPCD_RING_CAPACITY_MIN || j->capacity > IPCD_RING_CAPACITY_MAX || (j->capacity & (j->capacity - 1)) != 0 ||
		j->max_frame < 2 * IPCD_RING_FRAME_ALIGN || j->max_frame > j->capacity / 4 || j->max_frame % IPCD_RING_FRAME_ALIGN != 0 || j->slot >= IPCD_RING_MAX_LANES)
		return -EINVAL;
	p->capacity = j->capacity;
	p->max_frame = j->max_frame;
	p->stall_ns = j->stall_ns;
	p->untimed = o->untimed;
	p->published = p->position = ipcd_i_load64(p->m.memory + IPCD_RING_LANE_PUBLISHED);
	p->sequence = ipcd_i_load64(p->m.memory + IPCD_RING_LANE_SEQUENCE);
	p->oldest = ipcd_i_load64(p->m.memory + IPCD_RING_LANE_OLDEST);
	p->wake = ipcd_i_load32(p->m.memory + IPCD_RING_LANE_WAKE);
	return 0;
}

static inline int ipcd_ring_producer_open(struct ipcd_ring_producer **out, const char *name,
	const struct ipcd_ring_options *options)
{
	struct ipcd_ring_options o;
	struct ipcd_ring_joined j;
	ipcd_ring_options_init(&o);
	if (options != NULL)
		o = *options;
	memset(&j, 0, sizeof j);
	*out = NULL;
	struct ipcd_ring_producer *p = ipcd_i_new_producer();
	if (p == NULL)
		return -ENOMEM;
	int64_t deadline = ipcd_i_deadline(o.timeout_ns > 0 ? o.timeout_ns : 30 * IPCD_I_SECOND);
	int result = ipcd_i_attach(&p->m, &j, IPCD_RING_PRODUCER, name, &o, deadline);
	if (result == 0 && ipcd_i_set_up_producer(p, &j, &o) != 0)
		result = -EPROTO;
	if (result == 0)
		result = ipcd_i_first_members(&p->m, deadline);
	ipcd_i_explain(&p->m, &o, result);
	if (result == 0)
		*out = p;
	else
		ipcd_ring_producer_close(p);
	return result;
}

static inline int ipcd_ring_producer_from(struct ipcd_ring_producer **out,
	const struct ipcd_ring_joined *joined, int memory, int page, const struct ipcd_ring_options *options)
{
	struct ipcd_ring_options o;
	ipcd_ring_options_init(&o);
	if (options != NULL)
		o = *options;
	*out = NULL;
	if (joined->capacity > IPCD_RING_CAPACITY_MAX)
		return -EINVAL;
	struct ipcd_ring_producer *p = ipcd_i_new_producer();
	if (p == NULL)
		return -ENOMEM;
	p->m.size = (size_t)(IPCD_RING_LANE_DATA + joined->capacity);
	p->m.memory = ipcd_i_map(memory, p->m.size, true);
	int result = p->m.memory == NULL ? -errno : ipcd_i_use_page(&p->m, page);
	if (result == 0)
		result = ipcd_i_set_up_producer(p, joined, &o);
	if (result == 0)
		*out = p;
	else
		ipcd_ring_producer_close(p);
	return result;
}

/* ---- Consumers ---- */

enum { IPCD_I_RECEIVED, IPCD_I_LOST, IPCD_I_PARKS, IPCD_I_READER_BACKSTOPS, IPCD_I_CORRUPT }; /* counters of a consumer */

/* A lane, as its consumer sees it. Words of the lane are read once each, into what is here. */
struct ipcd_i_lane {
	const uint8_t *memory; /* NULL: the slot is free */
	const uint8_t *data;
	uint64_t capacity, max_frame;
	uint64_t cursor;       /* where to read next */
	uint64_t published, oldest; /* the last that were believed; they never go back */
	uint64_t expected;     /* sequence of the next frame; 0: whatever comes */
	uint64_t at_least;     /* while that is 0: what it is if nothing was lost before; 0: not known */
	uint64_t from;         /* frames with smaller sequences are skipped */
	uint64_t last;         /* sequence of the last frame that was passed */
	uint64_t lost, unsaid; /* messages; those of them that no message has told of yet */
	uint64_t stored;       /* the cursor that the consumer's page shows */
	size_t size;
	uint64_t id, epoch;
	uint32_t slot;
	uint32_t woke;         /* the generation of `blocked` that this consumer last woke */
	uint32_t wake;         /* the lane's wake word before a sleep */
	bool lossless, gating; /* the lane is; this consumer holds it back */
	bool ended;            /* nothing more comes */
	uint64_t end;          /* published when that was learnt: a producer that was thrown out may go on writing */
	int protection;        /* 0: seen is too old; 1 and 2: so many changes of oldest are missing, less; 3: it holds */
	uint64_t mark;         /* the oldest of the last change */
};

struct ipcd_ring_consumer {
	struct ipcd_i_member m; /* first: see ipcd_i_apply */
	unsigned active_count, turn, burst;
	uint32_t parked, wake;
	uint64_t received, lost;
	struct ipcd_i_lane *viewed; /* lane of the borrowed view, NULL: none */
	uint64_t view_next;
	bool view_lost;
	bool filtered;
	int64_t *types;         /* sorted */
	size_t types_count;
	uint8_t *buffer;
	size_t buffer_size;
	enum ipcd_ring_start start;
	uint64_t start_sequence;
	uint64_t evicted;
	unsigned calls;
	int64_t suspicious_until;
	uint8_t active[IPCD_RING_MAX_LANES];      /* slots of the lanes that are read */
	uint64_t finished[IPCD_RING_MAX_LANES];   /* ids of lanes that are read no more though they may still be listed, by slot */
	struct ipcd_i_lane lanes[IPCD_RING_MAX_LANES]; /* by slot */
};

enum { IPCD_I_NOTHING = 0, IPCD_I_TAKEN = 1, IPCD_I_PASSED = 2 };
enum ipcd_i_how { IPCD_I_OWN_BUFFER, IPCD_I_CALLERS_BUFFER, IPCD_I_BORROW };

static inline uint8_t *ipcd_i_line(const struct ipcd_ring_consumer *c, const struct ipcd_i_lane *l)
{
	return c->m.memory + IPCD_RING_CONSUMER_LINES + 128 * l->slot;
}

static IPCD_I_COLD void ipcd_i_wake_producer(struct ipcd_ring_consumer *c)
{
	uint8_t *word = c->m.memory + IPCD_RING_CONSUMER_WAKE;
	ipcd_i_strong_store32(word, ++c->wake);
	ipcd_i_wake(word);
}

/* Shows how far a lane was read. What was read must be read before: release. A producer may be waiting for it. */
static inline void ipcd_i_store_cursor(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	uint8_t *line = ipcd_i_line(c, l);
	ipcd_i_store64(line + 16, l->last);
	ipcd_i_store64(line + 24, l->lost);
	uint8_t *counters = c->m.memory + IPCD_RING_CONSUMER_COUNTERS;
	ipcd_i_store64(counters + 8 * IPCD_I_RECEIVED, c->received);
	ipcd_i_store64(counters + 8 * IPCD_I_LOST, c->lost);
	l->stored = l->cursor;
	if (!l->gating) {
		ipcd_i_release64(line + 8, l->cursor);
		return;
	}
	ipcd_i_strong_store64(line + 8, l->cursor);
	uint32_t blocked = ipcd_i_strong32(l->memory + IPCD_RING_LANE_BLOCKED);
	if (IPCD_I_UNLIKELY((blocked & 1) != 0 && blocked != l->woke)) {
		l->woke = blocked;
		ipcd_i_wake_producer(c);
	}
}

static IPCD_I_COLD void ipcd_i_store_cursors(struct ipcd_ring_consumer *c)
{
	for (unsigned i = 0; i < c->active_count; i++) {
		struct ipcd_i_lane *l = &c->lanes[c->active[i]];
		if (l->stored != l->cursor)
			ipcd_i_store_cursor(c, l);
	}
}

/* Reads a lane no more. */
static IPCD_I_COLD void ipcd_i_drop_lane(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < c->active_count; i++)
		if (c->active[i] != l->slot)
			c->active[kept++] = c->active[i];
	c->active_count = kept;
	c->turn = c->burst = 0;
	if (c->viewed == l)
		c->viewed = NULL;
	munmap((void *)(uintptr_t)l->memory, l->size);
	c->finished[l->slot] = l->id;
	memset(l, 0, sizeof *l);
}

/* The lane's memory does not make sense. -EBADMSG */
static IPCD_I_COLD int ipcd_i_corrupt(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l, const char *what)
{
	snprintf(c->m.text, sizeof c->m.text, "lane %llu is corrupt at position %llu: %s; it is read no further",
		(unsigned long long)l->id, (unsigned long long)l->cursor, what);
	ipcd_i_count(c->m.memory + IPCD_RING_CONSUMER_COUNTERS, IPCD_I_CORRUPT, 1);
	l->cursor = ~UINT64_C(31); /* past everything: it holds nobody back any more */
	ipcd_i_store_cursor(c, l);
	ipcd_i_drop_lane(c, l);
	return -EBADMSG;
}

/* Once the producer has written this consumer off: -EPIPE. Otherwise 0. */
static inline int ipcd_i_evicted(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	if (!l->gating || IPCD_I_LIKELY(ipcd_i_load64(l->memory + IPCD_RING_LANE_EVICTED + 8 * c->m.slot) != c->m.id))
		return 0;
	l->gating = false;
	c->evicted++;
	snprintf(c->m.text, sizeof c->m.text, "this consumer held the producer of lane %llu up for too long and does not hold it any more: messages may be lost from now on",
		(unsigned long long)l->id);
	return -EPIPE;
}

/* Protection from being lapped holds once seen has reached this consumer's epoch and oldest then changed twice. */
static inline void ipcd_i_protect(const struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	if (IPCD_I_LIKELY(!l->gating || l->protection == 3))
		return;
	if (l->protection == 0) {
		if (ipcd_i_acquire64(l->memory + IPCD_RING_LANE_SEEN) < c->m.epoch)
			return;
		l->protection = 1;
		l->mark = ipcd_i_acquire64(l->memory + IPCD_RING_LANE_OLDEST);
	} else if (l->oldest != l->mark) {
		l->mark = l->oldest;
		l->protection++;
	}
}

/* How far the lane may be read. */
static inline uint64_t ipcd_i_visible(const struct ipcd_i_lane *l)
{
	uint64_t published = ipcd_i_strong64(l->memory + IPCD_RING_LANE_PUBLISHED);
	return l->ended && published > l->end ? l->end : published;
}

/* Notes whether the lane's producer has left. */
static inline void ipcd_i_note_end(struct ipcd_i_lane *l, bool ended)
{
	if (ended && !l->ended && l->memory != NULL)
		l->end = ipcd_i_strong64(l->memory + IPCD_RING_LANE_PUBLISHED);
	l->ended = ended;
}

/* Reads published and oldest anew, and believes them if they make sense. 0, -EAGAIN: not now, -EBADMSG. */
static inline int ipcd_i_positions(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	uint64_t published = ipcd_i_visible(l);
	for (int tries = 0; tries < 100; tries++) {
		uint64_t oldest = ipcd_i_acquire64(l->memory + IPCD_RING_LANE_OLDEST);
		if (((published | oldest) & (IPCD_RING_FRAME_ALIGN - 1)) != 0)
			return ipcd_i_corrupt(c, l, "a position is no multiple of 32");
		if (published < l->published || oldest < l->oldest)
			return ipcd_i_corrupt(c, l, "a position went back");
		if (published >= oldest) {
			if (published - oldest > l->capacity)
				return ipcd_i_corrupt(c, l, "more is published than fits the lane");
			l->published = published;
			l->oldest = oldest;
			return 0;
		}
		l->oldest = oldest;
		published = ipcd_i_visible(l); /* the producer wrote on meanwhile */
		if (published < oldest)
			return ipcd_i_corrupt(c, l, "what was published is older than the oldest");
	}
	return -EAGAIN; /* it is overtaken again and again: others have their turn */
}

/* The producer has overwritten what lies at the cursor: go on at the oldest frame. IPCD_I_PASSED, IPCD_I_NOTHING, -EBADMSG, -EPIPE. */
static IPCD_I_COLD int ipcd_i_jump(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	int result = ipcd_i_evicted(c, l);
	if (result != 0)
		return result;
	result = ipcd_i_positions(c, l);
	if (result != 0)
		return result == -EAGAIN ? IPCD_I_NOTHING : result;
	if (l->oldest > l->cursor)
		l->cursor = l->oldest;
	if (l->gating && l->protection < 3)
		l->expected = l->at_least = 0; /* its start moves, nothing is lost */
	ipcd_i_protect(c, l);
	if (l->gating)
		ipcd_i_store_cursor(c, l);
	return IPCD_I_PASSED;
}

/* All that was known to be published was read: is there more? IPCD_I_PASSED: yes, IPCD_I_NOTHING, -EBADMSG, -EPIPE. */
static inline int ipcd_i_refresh(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	int result = ipcd_i_evicted(c, l);
	if (IPCD_I_UNLIKELY(result != 0))
		return result;
	if (ipcd_i_visible(l) == l->cursor) {
		if (IPCD_I_UNLIKELY(l->ended)) {
			ipcd_i_store_cursor(c, l);
			ipcd_i_drop_lane(c, l);
		}
		return IPCD_I_NOTHING;
	}
	result = ipcd_i_positions(c, l);
	if (IPCD_I_UNLIKELY(result != 0))
		return result == -EAGAIN ? IPCD_I_NOTHING : result;
	if (IPCD_I_UNLIKELY(l->oldest > l->cursor))
		return ipcd_i_jump(c, l);
	ipcd_i_protect(c, l);
	return l->published > l->cursor ? IPCD_I_PASSED : IPCD_I_NOTHING;
}

/* Whether what was just read at the cursor was overwritten meanwhile. The loads before must not pass this one: acquire fence. */
static inline bool ipcd_i_overtaken(const struct ipcd_i_lane *l)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return ipcd_i_load64(l->memory + IPCD_RING_LANE_OLDEST) > l->cursor;
}

/* A frame makes no sense: either it was overwritten meanwhile, or the lane is corrupt. */
static IPCD_I_COLD int ipcd_i_doubt(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l, const char *what)
{
	return ipcd_i_overtaken(l) ? ipcd_i_jump(c, l) : ipcd_i_corrupt(c, l, what);
}

static inline bool ipcd_i_wanted(const struct ipcd_ring_consumer *c, int64_t type)
{
	if (IPCD_I_LIKELY(!c->filtered))
		return true;
	size_t low = 0, high = c->types_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (c->types[middle] == type)
			return true;
		if (c->types[middle] < type)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* Counts what is missing before a frame that was accepted. */
static inline void ipcd_i_account(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l, uint64_t sequence)
{
	uint64_t expected = l->expected != 0 ? l->expected : l->at_least;
	if (l->from > expected)
		expected = l->from;
	if (IPCD_I_UNLIKELY(expected != 0 && sequence > expected && !(l->expected == 0 && l->gating && l->protection < 3))) {
		l->lost += sequence - expected;
		l->unsaid += sequence - expected;
		c->lost += sequence - expected;
	}
	l->expected = sequence + 1;
	l->last = sequence;
}

static inline void ipcd_i_advance(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l, uint64_t to)
{
	l->cursor = to;
	if (IPCD_I_UNLIKELY(to - l->stored >= l->capacity / 64))
		ipcd_i_store_cursor(c, l);
}

/* A buffer of one's own for so many bytes. */
static IPCD_I_COLD int ipcd_i_grow(struct ipcd_ring_consumer *c, size_t size)
{
	size_t wanted = 4096;
	while (wanted < size)
		wanted *= 2;
	uint8_t *buffer = (uint8_t *)malloc(wanted);
	if (buffer == NULL)
		return -ENOMEM;
	free(c->buffer);
	c->buffer = buffer;
	c->buffer_size = wanted;
	return 0;
}

/*
 * Looks at one frame. IPCD_I_TAKEN: *m is filled, IPCD_I_PASSED: it was none for the caller, go on, IPCD_I_NOTHING:
 * the lane is read, or a negative errno.
 */
static inline int ipcd_i_take(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l,
	struct ipcd_ring_message *m, enum ipcd_i_how how, void *buffer, size_t size)
{
	if (l->cursor == l->published) {
		int result = ipcd_i_refresh(c, l);
		if (result == IPCD_I_NOTHING && l->memory == NULL)
			return IPCD_I_PASSED; /* it has ended: the others have moved up */
		if (result != IPCD_I_PASSED)
			return result;
	}
	uint64_t at = l->cursor;
	const uint8_t *frame = l->data + (at & (l->capacity - 1));
	uint64_t room = l->capacity - (at & (l->capacity - 1)), left = l->published - at;
	uint64_t sequence = ipcd_i_load64(frame), both = ipcd_i_load64(frame + 8);
	int64_t type = (int64_t)ipcd_i_load64(frame + 16), time_ns = (int64_t)ipcd_i_load64(frame + 24);
	uint64_t length = both & UINT32_MAX;
	if (IPCD_I_UNLIKELY((both >> 32 & IPCD_RING_PAD) != 0)) {
		if (room > left)
			return ipcd_i_doubt(c, l, "a PAD reaches past what is published");
		if (ipcd_i_overtaken(l))
			return ipcd_i_jump(c, l);
		ipcd_i_advance(c, l, at + room);
		return IPCD_I_PASSED;
	}
	uint64_t whole = ipcd_i_frame_size(length);
	if (IPCD_I_UNLIKELY(whole > l->max_frame || whole > room || whole > left))
		return ipcd_i_doubt(c, l, "a frame is too long");
	if (IPCD_I_UNLIKELY(sequence == 0 || sequence < l->expected))
		return ipcd_i_doubt(c, l, "a sequence does not rise");
	if (IPCD_I_UNLIKELY(type <= 0))
		return ipcd_i_doubt(c, l, "a type is not positive");
	if (IPCD_I_UNLIKELY(sequence < l->from || !ipcd_i_wanted(c, type))) {
		if (ipcd_i_overtaken(l))
			return ipcd_i_jump(c, l);
		ipcd_i_account(c, l, sequence);
		ipcd_i_advance(c, l, at + whole);
		return IPCD_I_PASSED;
	}
	const void *payload = frame + IPCD_RING_FRAME_HEADER;
	int trouble = 0;
	if (how != IPCD_I_BORROW) {
		if (how == IPCD_I_OWN_BUFFER) {
			if (IPCD_I_UNLIKELY(length > c->buffer_size))
				trouble = ipcd_i_grow(c, (size_t)length);
			buffer = c->buffer;
		} else if (length > size) {
			trouble = -EMSGSIZE;
		}
		if (IPCD_I_LIKELY(trouble == 0 && length > 0))
			memcpy(buffer, payload, (size_t)length);
		payload = buffer;
	}
	if (IPCD_I_UNLIKELY(ipcd_i_overtaken(l)))
		return ipcd_i_jump(c, l);
	m->type = type;
	m->time_ns = time_ns;
	m->lane = l->id;
	m->sequence = sequence;
	m->size = (size_t)length;
	m->payload = trouble == 0 ? payload : NULL;
	if (IPCD_I_UNLIKELY(trouble != 0)) {
		m->lost = l->unsaid;
		return trouble;
	}
	ipcd_i_account(c, l, sequence);
	m->lost = l->unsaid;
	l->unsaid = 0;
	c->received++;
	if (how == IPCD_I_BORROW) {
		c->viewed = l;
		c->view_next = at + whole;
		c->view_lost = false;
	} else {
		ipcd_i_advance(c, l, at + whole);
	}
	return IPCD_I_TAKEN;
}

/* Looks through the lanes in turn. IPCD_I_TAKEN, IPCD_I_PASSED: there may be more, IPCD_I_NOTHING, or a negative errno. */
static inline int ipcd_i_scan(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m,
	enum ipcd_i_how how, void *buffer, size_t size)
{
	unsigned empty = 0;
	for (unsigned frames = 0; frames < IPCD_I_FRAMES && empty < c->active_count; frames++) {
		if (c->turn >= c->active_count)
			c->turn = 0;
		int result = ipcd_i_take(c, &c->lanes[c->active[c->turn]], m, how, buffer, size);
		if (result == IPCD_I_NOTHING) {
			empty++;
		} else {
			empty = 0;
			c->burst++;
		}
		if (result == IPCD_I_NOTHING || c->burst >= IPCD_I_BURST) {
			c->turn++;
			c->burst = 0;
		}
		if (result != IPCD_I_NOTHING && result != IPCD_I_PASSED)
			return result;
	}
	return empty < c->active_count ? IPCD_I_PASSED : IPCD_I_NOTHING;
}

/* The borrowed view ends with the next call. */
static inline void ipcd_i_return_view(struct ipcd_ring_consumer *c)
{
	if (c->viewed != NULL) {
		ipcd_i_advance(c, c->viewed, c->view_next);
		c->viewed = NULL;
	}
}

/* Whether a lane has something, or an end, that was not seen when it was last looked at. */
static inline bool ipcd_i_news(const struct ipcd_ring_consumer *c)
{
	for (unsigned i = 0; i < c->active_count; i++) {
		const struct ipcd_i_lane *l = &c->lanes[c->active[i]];
		if (ipcd_i_visible(l) != l->cursor)
			return true;
	}
	return ipcd_i_strong64(c->m.page) != c->m.noticed;
}

/* Whether the wake word of a lane that has something new is another than before the sleep. */
static inline bool ipcd_i_woken(const struct ipcd_ring_consumer *c)
{
	for (unsigned i = 0; i < c->active_count; i++) {
		const struct ipcd_i_lane *l = &c->lanes[c->active[i]];
		if (ipcd_i_visible(l) != l->cursor && ipcd_i_strong32(l->memory + IPCD_RING_LANE_WAKE) != l->wake)
			return true;
	}
	return false;
}

/* Sleeps until a lane has news, or a member comes or goes, or `until`. 0, or -EINTR. */
static IPCD_I_COLD int ipcd_i_park(struct ipcd_ring_consumer *c, int64_t until)
{
	struct ipcd_i_word words[IPCD_I_WORDS];
	unsigned count = 0;
	uint64_t epoch = ipcd_i_strong64(c->m.page);
	for (unsigned i = 0; i < c->active_count; i++) {
		struct ipcd_i_lane *l = &c->lanes[c->active[i]];
		l->wake = ipcd_i_strong32(l->memory + IPCD_RING_LANE_WAKE);
		ipcd_i_watch(&words[count++], l->memory + IPCD_RING_LANE_WAKE, l->wake);
	}
	ipcd_i_watch(&words[count++], c->m.page, (uint32_t)epoch);

	uint8_t *parked = c->m.memory + IPCD_RING_CONSUMER_PARKED(c->m.slot);
	ipcd_i_strong_store32(parked, ++c->parked);
	int result = 0;
	if (!ipcd_i_news(c)) {
		ipcd_i_count(c->m.memory + IPCD_RING_CONSUMER_COUNTERS, IPCD_I_PARKS, 1);
		result = ipcd_i_wait(words, count, until);
		if (result == -ETIMEDOUT && ipcd_i_strong64(c->m.page) == epoch && ipcd_i_news(c)) {
			/* Data, and nobody said so? A producer that runs does within a moment. */
			bool told = ipcd_i_woken(c);
			if (told) { /* it was said, but not here: the word's sleepers were moved, or this thread did not run */
				told = ipcd_i_now() - until > IPCD_I_MS;
			} else {
				ipcd_i_sleep(IPCD_I_MS);
				told = ipcd_i_strong64(c->m.page) != epoch || ipcd_i_woken(c);
			}
			if (!told) {
				ipcd_i_count(c->m.memory + IPCD_RING_CONSUMER_COUNTERS, IPCD_I_READER_BACKSTOPS, 1);
				c->suspicious_until = ipcd_i_now() + IPCD_I_SUSPICION;
			}
		}
	}
	ipcd_i_strong_store32(parked, ++c->parked); /* the next sleep is a new generation, also after -EINTR */
	return result == -EINTR ? -EINTR : 0;
}

/* Looks after the membership if there is a reason, or none was looked for in 100 ms. */
static inline void ipcd_i_tend(struct ipcd_ring_consumer *c, int64_t now)
{
	if (ipcd_i_strong64(c->m.page) != c->m.noticed || ipcd_i_awaits(&c->m) || now - c->m.looked >= IPCD_I_BACKSTOP)
		ipcd_i_service(&c->m);
}

/* Nothing was there at the first look: waits. As ipcd_ring_next. */
static IPCD_I_COLD int ipcd_i_wait_for_message(struct ipcd_ring_consumer *c,
	struct ipcd_ring_message *m, enum ipcd_i_how how, void *buffer, size_t size, int64_t timeout_ns)
{
	int64_t deadline = ipcd_i_deadline(timeout_ns), now = ipcd_i_now();
	unsigned spun = 0;
	for (;;) {
		ipcd_i_store_cursors(c);
		ipcd_i_tend(c, now);
		if (c->m.dead != 0)
			return c->m.dead;
		int result = ipcd_i_scan(c, m, how, buffer, size);
		if (result == IPCD_I_TAKEN)
			return 0;
		if (result < 0)
			return result;
		if (timeout_ns == 0)
			return -EAGAIN;
		if (result == IPCD_I_PASSED) {
			spun = 0;
		} else if (spun < c->m.spins) {
			ipcd_i_pause();
			if ((++spun & 15) != 0 && !ipcd_i_awaits(&c->m)) /* the clock and the membership can wait a little */
				continue;
		} else {
			int64_t until = now + (ipcd_i_awaits(&c->m) || now < c->suspicious_until ? IPCD_I_MS : IPCD_I_BACKSTOP);
			ipcd_i_store_cursors(c);
			result = ipcd_i_park(c, until < deadline ? until : deadline);
			if (result != 0)
				return result;
		}
		now = ipcd_i_now();
		if (now >= deadline) {
			result = ipcd_i_scan(c, m, how, buffer, size);
			return result == IPCD_I_TAKEN ? 0 : result < 0 ? result : -ETIMEDOUT;
		}
	}
}

static inline int ipcd_i_next(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m,
	enum ipcd_i_how how, void *buffer, size_t size, int64_t timeout_ns)
{
	ipcd_i_return_view(c);
	if (IPCD_I_UNLIKELY(c->m.dead != 0))
		return c->m.dead;
	if (IPCD_I_UNLIKELY((++c->calls & 63) == 0 && ipcd_i_strong64(c->m.page) != c->m.noticed)) /* also while data keeps coming */
		ipcd_i_service(&c->m);
	int result = ipcd_i_scan(c, m, how, buffer, size);
	if (IPCD_I_LIKELY(result == IPCD_I_TAKEN))
		return 0;
	return result < 0 ? result : ipcd_i_wait_for_message(c, m, how, buffer, size, timeout_ns);
}

static inline int ipcd_ring_next(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m, int64_t timeout_ns)
{
	return ipcd_i_next(c, m, IPCD_I_OWN_BUFFER, NULL, 0, timeout_ns);
}

static inline int ipcd_ring_next_into(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m,
	void *buffer, size_t size, int64_t timeout_ns)
{
	return ipcd_i_next(c, m, IPCD_I_CALLERS_BUFFER, buffer, size, timeout_ns);
}

static inline int ipcd_ring_view(struct ipcd_ring_consumer *c, struct ipcd_ring_message *m, int64_t timeout_ns)
{
	return ipcd_i_next(c, m, IPCD_I_BORROW, NULL, 0, timeout_ns);
}

static inline bool ipcd_ring_view_valid(struct ipcd_ring_consumer *c)
{
	if (c->viewed == NULL)
		return false;
	if (!c->view_lost && ipcd_i_overtaken(c->viewed)) {
		c->view_lost = true;
		c->received--;
		c->lost++;
		c->viewed->lost++;
	}
	return !c->view_lost;
}

static inline const char *ipcd_ring_consumer_text(const struct ipcd_ring_consumer *c) { return c->m.text; }

static inline void ipcd_ring_consumer_get_stats(const struct ipcd_ring_consumer *c, struct ipcd_ring_consumer_stats *s)
{
	const uint8_t *counters = c->m.memory + IPCD_RING_CONSUMER_COUNTERS;
	memset(s, 0, sizeof *s);
	s->received = c->received;
	s->lost = c->lost;
	s->parks = ipcd_i_load64(counters + 8 * IPCD_I_PARKS);
	s->backstops = ipcd_i_load64(counters + 8 * IPCD_I_READER_BACKSTOPS);
	s->corrupt = ipcd_i_load64(counters + 8 * IPCD_I_CORRUPT);
	s->evicted = c->evicted;
	s->lanes = c->active_count;
	for (unsigned i = 0; i < c->active_count; i++) {
		const struct ipcd_i_lane *l = &c->lanes[c->active[i]];
		uint64_t published = ipcd_i_acquire64(l->memory + IPCD_RING_LANE_PUBLISHED), sequence = ipcd_i_load64(l->memory + IPCD_RING_LANE_SEQUENCE);
		uint64_t passed = l->last != 0 ? l->last : sequence; /* what lies before the start does not count */
		if (l->last == 0 && l->expected != 0)
			passed = l->expected - 1;
		s->lag_bytes += published > l->cursor ? published - l->cursor : 0;
		s->lag_messages += sequence > passed ? sequence - passed : 0;
	}
}

static inline int ipcd_ring_consumer_service(struct ipcd_ring_consumer *c)
{
	ipcd_i_return_view(c);
	ipcd_i_store_cursors(c);
	return ipcd_i_service(&c->m);
}

/* Begins to read a lane. */
static IPCD_I_COLD int ipcd_i_add_lane(struct ipcd_ring_consumer *c, const struct ipcd_ring_peer *peer)
{
	if (peer->slot >= IPCD_RING_MAX_LANES || peer->capacity < IPCD_RING_CAPACITY_MIN || peer->capacity > IPCD_RING_CAPACITY_MAX || (peer->capacity & (peer->capacity - 1)) != 0 ||
		peer->size != IPCD_RING_LANE_DATA + peer->capacity || peer->max_frame > peer->capacity / 4)
		return -EPROTO;
	uint8_t *memory = ipcd_i_map(peer->fd, (size_t)peer->size, false);
	if (memory == NULL)
		return -errno;
	struct ipcd_i_lane *l = &c->lanes[peer->slot];
	memset(l, 0, sizeof *l);
	l->memory = memory;
	l->size = (size_t)peer->size;
	l->data = memory + IPCD_RING_LANE_DATA;
	l->capacity = peer->capacity;
	l->max_frame = peer->max_frame;
	l->id = peer->id;
	l->epoch = peer->epoch;
	l->slot = peer->slot;
	l->lossless = (peer->flags & IPCD_RING_LOSSLESS) != 0;
	l->gating = l->lossless && (c->m.flags & IPCD_RING_LOSSLESS) != 0;
	c->active[c->active_count++] = (uint8_t)peer->slot;

	if (peer->epoch > c->m.epoch) { /* it joined later: from its beginning */
		l->expected = 1;
		l->protection = 3;
	} else {
		int result = ipcd_i_positions(c, l);
		if (result == -EBADMSG)
			return 0; /* dropped, and counted */
		l->cursor = c->start == IPCD_RING_NEWEST ? l->published : l->oldest;
		l->from = c->start == IPCD_RING_SEQUENCE ? c->start_sequence : 0;
		if (c->start == IPCD_RING_NEWEST) /* of what is published from now on, nothing goes uncounted */
			l->at_least = ipcd_i_load64(memory + IPCD_RING_LANE_SEQUENCE) + 1;
	}
	l->stored = l->cursor;
	uint8_t *line = ipcd_i_line(c, l);
	ipcd_i_store64(line + 16, 0);
	ipcd_i_store64(line + 24, 0);
	ipcd_i_strong_store64(line + 8, l->cursor);
	ipcd_i_strong_store64(line, l->id); /* now the cursor counts */
	ipcd_i_protect(c, l);
	return 0;
}

/* A lane is neither listed nor wanted any more, and its slot has another: what was not read of it is lost. */
static IPCD_I_COLD void ipcd_i_lose_lane(struct ipcd_ring_consumer *c, struct ipcd_i_lane *l)
{
	uint64_t sequence = ipcd_i_load64(l->memory + IPCD_RING_LANE_SEQUENCE);
	if (l->expected != 0 && sequence >= l->expected)
		c->lost += sequence - l->expected + 1;
	ipcd_i_drop_lane(c, l);
}

static IPCD_I_COLD int ipcd_i_offer_lanes(struct ipcd_ring_consumer *c, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count)
{
	int result = 0;
	ipcd_i_return_view(c);
	for (unsigned slot = 0; !partial && slot < IPCD_RING_MAX_LANES; slot++) {
		bool there = false;
		for (size_t j = 0; j < count; j++)
			there = there || (peers[j].kind == IPCD_RING_KIND_LANE && peers[j].id == c->lanes[slot].id);
		if (!there)
			ipcd_i_note_end(&c->lanes[slot], true); /* it is read up to its end */
	}
	for (size_t j = 0; j < count; j++) {
		const struct ipcd_ring_peer *peer = &peers[j];
		if (peer->kind == IPCD_RING_KIND_LANE && peer->slot < IPCD_RING_MAX_LANES) {
			struct ipcd_i_lane *l = &c->lanes[peer->slot];
			if (l->memory != NULL && l->id != peer->id)
				ipcd_i_lose_lane(c, l);
			if (l->memory == NULL && peer->fd >= 0 && c->finished[peer->slot] != peer->id && result == 0)
				result = ipcd_i_add_lane(c, peer);
			if (l->memory != NULL)
				ipcd_i_note_end(l, (peer->flags & IPCD_RING_ENDED) != 0);
		} else if (peer->kind == IPCD_RING_KIND_LANE) {
			result = -EPROTO;
		}
		if (peer->fd >= 0)
			close(peer->fd);
	}
	if (result == 0)
		c->m.known = epoch;
	if (c->m.link == IPCD_I_ALONE)
		c->m.noticed = epoch;
	return result;
}

static inline int ipcd_ring_consumer_offer(struct ipcd_ring_consumer *c, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count)
{
	return ipcd_i_offer_lanes(c, epoch, partial, peers, count);
}

static inline void ipcd_ring_consumer_close(struct ipcd_ring_consumer *c)
{
	if (c == NULL)
		return;
	ipcd_i_return_view(c);
	if (c->m.memory != NULL)
		ipcd_i_store_cursors(c);
	for (unsigned slot = 0; slot < IPCD_RING_MAX_LANES; slot++)
		if (c->lanes[slot].memory != NULL)
			ipcd_i_drop_lane(c, &c->lanes[slot]);
	ipcd_i_end(&c->m);
	free(c->types);
	free(c->buffer);
	free(c);
}

static inline int ipcd_i_compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y ? 1 : 0;
}

static IPCD_I_COLD struct ipcd_ring_consumer *ipcd_i_new_consumer(const struct ipcd_ring_options *o)
{
	errno = ENOMEM;
	struct ipcd_ring_consumer *c = (struct ipcd_ring_consumer *)calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->m.socket = c->m.own = -1;
	c->start = o->start;
	c->start_sequence = o->sequence;
	c->filtered = o->types != NULL;
	for (size_t i = 0; c->filtered && i < o->types_count; i++)
		if (o->types[i] <= 0) { /* types are positive */
			free(c);
			errno = EINVAL;
			return NULL;
		}
	if (c->filtered && o->types_count > 0) {
		c->types = o->types_count > SIZE_MAX / 2 / sizeof(int64_t) ? NULL : (int64_t *)malloc(o->types_count * sizeof(int64_t));
		if (c->types == NULL) {
			free(c);
			return NULL;
		}
		memcpy(c->types, o->types, o->types_count * sizeof(int64_t));
		c->types_count = o->types_count;
		qsort(c->types, c->types_count, sizeof(int64_t), ipcd_i_compare);
	}
	return c;
}

static IPCD_I_COLD int ipcd_i_set_up_consumer(struct ipcd_ring_consumer *c, const struct ipcd_ring_joined *j)
{
	ipcd_i_start(&c->m, IPCD_RING_CONSUMER, j);
	if (j->slot >= IPCD_RING_MAX_CONSUMERS)
		return -EINVAL;
	c->parked = ipcd_i_load32(c->m.memory + IPCD_RING_CONSUMER_PARKED(j->slot)) & ~1u;
	c->wake = ipcd_i_load32(c->m.memory + IPCD_RING_CONSUMER_WAKE);
	return 0;
}

static inline int ipcd_ring_consumer_open(struct ipcd_ring_consumer **out, const char *name,
	const struct ipcd_ring_options *options)
{
	struct ipcd_ring_options o;
	struct ipcd_ring_joined j;
	ipcd_ring_options_init(&o);
	if (options != NULL)
		o = *options;
	memset(&j, 0, sizeof j);
	*out = NULL;
	struct ipcd_ring_consumer *c = ipcd_i_new_consumer(&o);
	if (c == NULL)
		return -errno;
	int64_t deadline = ipcd_i_deadline(o.timeout_ns > 0 ? o.timeout_ns : 30 * IPCD_I_SECOND);
	int result = ipcd_i_attach(&c->m, &j, IPCD_RING_CONSUMER, name, &o, deadline);
	if (result == 0 && ipcd_i_set_up_consumer(c, &j) != 0)
		result = -EPROTO;
	if (result == 0)
		result = ipcd_i_first_members(&c->m, deadline);
	ipcd_i_explain(&c->m, &o, result);
	if (result == 0)
		*out = c;
	else
		ipcd_ring_consumer_close(c);
	return result;
}

static inline int ipcd_ring_consumer_from(struct ipcd_ring_consumer **out,
	const struct ipcd_ring_joined *joined, int memory, int page, const struct ipcd_ring_options *options)
{
	struct ipcd_ring_options o;
	ipcd_ring_options_init(&o);
	if (options != NULL)
		o = *options;
	*out = NULL;
	struct ipcd_ring_consumer *c = ipcd_i_new_consumer(&o);
	if (c == NULL)
		return -errno;
	c->m.size = IPCD_RING_CONSUMER_SIZE;
	c->m.memory = ipcd_i_map(memory, c->m.size, true);
	int result = c->m.memory == NULL ? -errno : ipcd_i_use_page(&c->m, page);
	if (result == 0)
		result = ipcd_i_set_up_consumer(c, joined);
	if (result == 0)
		*out = c;
	else
		ipcd_ring_consumer_close(c);
	return result;
}

static inline int ipcd_i_apply(struct ipcd_i_member *m, uint64_t epoch, bool partial,
	const struct ipcd_ring_peer *peers, size_t count)
{
	if (m->role == IPCD_RING_PRODUCER) /* the membership is the first field of both handles */
		return ipcd_i_offer_readers((struct ipcd_ring_producer *)(void *)m, epoch, partial, peers, count);
	return ipcd_i_offer_lanes((struct ipcd_ring_consumer *)(void *)m, epoch, partial, peers, count);
}

#ifdef __cplusplus
}
#endif

#endif /* IPCD_RING_H */
