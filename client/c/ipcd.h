/*
 * ipcd.h: a client of ipcd's queues for C11, usable from C++17. Compile ipcd.c with your program:
 *
 *     cc -O2 app.c ipcd.c -lnghttp2
 *
 *     struct ipcd_client *c;
 *     struct ipcd_message hello = { .type = 7, .body = "hello", .body_size = 5 };
 *     struct ipcd_deliveries *got;
 *     if (ipcd_open(&c, NULL, NULL) == 0 && ipcd_send(c, "/jobs", &hello, 1, NULL) == 0)
 *         if (ipcd_receive(c, "/jobs", NULL, &got) > 0) {
 *             fwrite(got->items[0].message.body, 1, got->items[0].message.body_size, stdout);
 *             ipcd_ack(c, got->items[0].receipt);
 *             ipcd_deliveries_free(got);
 *         }
 *     ipcd_close(c);
 *
 * It speaks gRPC over the daemon's unix socket, as every client of ipcd does. Calls block. A client has one connection,
 * which the first call makes, and a later one makes again after it broke. (The daemon hangs up when there was no call for
 * the better part of a minute; nobody notices.) Only ipcd_close takes NULL for a client.
 *
 * Errors: functions return 0, or a count, when all went well, else a negative errno, which follows from the daemon's
 * reason:
 *
 *     -EINVAL        INVALID_ARGUMENT, DURABILITY_MISMATCH    -EIDRM         QUEUE_DELETED
 *     -ENOENT        QUEUE_NOT_FOUND                          -EACCES        ACCESS_DENIED, UNAUTHENTICATED
 *     -EEXIST        QUEUE_EXISTS, KERNEL_NAME_TAKEN          -ENOSPC        DISK_FULL
 *     -EAGAIN        QUEUE_FULL                               -EBADMSG       DAMAGED, SCHEMA_MISMATCH
 *     -EDQUOT        QUOTA_EXCEEDED                           -ETIMEDOUT     TIMED_OUT
 *     -EMSGSIZE      MESSAGE_TOO_LARGE                        -EIO           UNHEALTHY
 *     -E2BIG         BUFFER_TOO_SMALL                         -ESHUTDOWN     SHUTTING_DOWN
 *     -ESTALE        STALE_RECEIPT, STALE_BATCH               -ENOSYS        UNIMPLEMENTED
 *     -ECONNRESET    OUTCOME_UNKNOWN                          -ECONNREFUSED  UNREACHABLE
 *     -EPROTO        INTERNAL, and whatever makes no sense    -EINTR         CANCELLED: a signal handler ran
 *     -ENOMEM        OUT_OF_MEMORY, of this process           -ELOOP         BIND_CYCLE, DEAD_LETTER_CYCLE
 *     -EMFILE        KERNEL_LIMIT
 *
 * ipcd_last_error tells more, in words too.
 * Deadlines: every call ends after the client's timeout (ipcd_set_timeout); one that waits for a message, that much after
 * its wait.
 * Threads: a client is used by one thread at a time. Open one for each thread; they share nothing.
 * fork: a child may go on with its parent's client. It gets a connection of its own, and must settle none but what it
 * received itself. There, ipcd_close does not disturb the parent.
 * Signals: SIGPIPE is never raised. ipcd_receive and ipcd_request return -EINTR when a signal handler ran while they waited
 * (SA_RESTART changes nothing: see poll(2)); other calls go on.
 * Units: sizes are in bytes, spans in milliseconds (_ms), points of time in nanoseconds since 1970 (_ns), 0: none.
 * Strings are UTF-8 and end with NUL; NULL is as good as "". Structures of options that are all zero mean the defaults.
 */
#ifndef IPCD_H
#define IPCD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Limits, beyond which the daemon refuses, whatever a queue allows ---- */

#define IPCD_BATCH_MESSAGES 16384             /* messages of a send */
#define IPCD_BATCH_BYTES (24u << 20)          /* bodies, headers and ids of a send */
#define IPCD_RECEIVE_MESSAGES 16384           /* messages of a receive */
#define IPCD_SETTLEMENTS 65536                /* settlements of a call */
#define IPCD_PEEK_MESSAGES 1024               /* messages of a page; this client's own limit */
#define IPCD_TIMEOUT_DEFAULT_MS 30000

#define IPCD_FOREVER INT64_C(-1) /* a wait or a timeout without end */
#define IPCD_BACKOFF INT64_C(-1) /* the delay of a nack: the queue's own back-off */

/* ---- Client and errors ---- */

struct ipcd_client; /* made by ipcd_open, freed by ipcd_close */

struct ipcd_options {
	int64_t timeout_ms;     /* see ipcd_set_timeout; 0: IPCD_TIMEOUT_DEFAULT_MS */
	const char *user_agent; /* what the program calls itself, for ipcctl clients; at most 200 bytes of printable ASCII */
	char *text;             /* if not NULL: ipcd_open writes there, in words, what went wrong */
	size_t text_size;       /* bytes at text; 256 is plenty */
};

/* Why a call failed. */
struct ipcd_error {
	int result;             /* what the call returned: a negative errno; 0: it went well */
	int code;               /* the gRPC status code */
	char reason[64];        /* machine-readable, such as QUEUE_FULL */
	char message[1024];     /* for people: what was wrong, what is allowed, what to do */
	int64_t index;          /* the message or settlement concerned, from 0; -1: the call as a whole */
	int64_t retry_after_ms; /* when trying again may help; 0: not said */
};

/*
 * Makes a client of the daemon at address: "unix:///path/to/socket" or "/path/to/socket". NULL or "": $IPCD_ADDRESS;
 * else, for an ordinary user, $XDG_RUNTIME_DIR/ipcd/ipcd.sock if that exists; else /run/ipcd/ipcd.sock. Nothing is
 * connected yet: the first call does that. options may be NULL. -EINVAL: the address is none of a unix socket (TCP is
 * not for this client), or the options are wrong; -ENOMEM. On an error *out is NULL.
 */
int ipcd_open(struct ipcd_client **out, const char *address, const struct ipcd_options *options);

/* Hangs up and frees the client; NULL is ignored. What it leased comes again when the leases end. */
void ipcd_close(struct ipcd_client *c);

/* How long later calls may take, in milliseconds; IPCD_FOREVER: no limit; 0: the default. */
void ipcd_set_timeout(struct ipcd_client *c, int64_t timeout_ms);

/* How the latest call ended, valid until the next. */
const struct ipcd_error *ipcd_last_error(const struct ipcd_client *c);

/* ---- Messages ---- */

struct ipcd_header {
	const char *name; /* at most 256 bytes */
	const void *value;
	size_t value_size;
};

/* A message to be sent, or as it was sent. */
struct ipcd_message {
	int64_t type;      /* a positive number; 0 stands for 1 */
	uint32_t priority; /* 0 to 32767, higher first */
	const void *body;  /* may be NULL if body_size is 0 */
	size_t body_size;
	const struct ipcd_header *headers;
	size_t headers_count;       /* at most 64, and 64 KiB */
	int64_t delay_ms;           /* not delivered before this long after it was sent */
	int64_t ttl_ms;             /* dropped when it was not consumed this long after it was sent; 0: never */
	const char *dedup_id;       /* a second message with this id, within the queue's window, is not stored again */
	const char *correlation_id; /* this and the next two: at most 256 bytes, carried unchanged */
	const char *reply_to;       /* the queue in which an answer is expected */
	const char *content_type;   /* the media type of the body */
};

/* Which messages are meant. */
enum ipcd_selector_kind {
	IPCD_ANY = 0,
	IPCD_TYPE,     /* exactly this type */
	IPCD_UPTO,     /* the lowest type that is at most this one, as msgrcv(2) with a negative mtype */
	IPCD_NOT,      /* any type but this one, as msgrcv(2) with MSG_EXCEPT */
	IPCD_TYPES     /* any of these types */
};

struct ipcd_selector {
	enum ipcd_selector_kind kind;
	int64_t type;         /* IPCD_TYPE, IPCD_UPTO, IPCD_NOT */
	const int64_t *types; /* IPCD_TYPES */
	size_t types_count;   /* 1 to 1024 */
};

/* ---- Sending ---- */

/* What became of a message that was sent. */
struct ipcd_sent {
	uint64_t sequence; /* rises in each queue; never used twice. Of a duplicate: the first message's. */
	bool duplicate;    /* not stored: its dedup id was seen before */
};

/*
 * Stores a batch, all of it or nothing, and returns once it is committed: 0. sent is NULL, or an array of count.
 *
 * The client sends under a producer id and a batch id of its own. Should the connection break before the answer, it
 * sends the batch again, for a minute at most and within the timeout, and the daemon stores it once. Where it remains
 * open whether the batch was stored the result is -ECONNRESET (OUTCOME_UNKNOWN). -ECONNREFUSED says that nothing was
 * sent. A full queue with overflow `block` keeps the call waiting until a little before the timeout. -EAGAIN: the queue
 * is full; see retry_after_ms. -EMSGSIZE: a body is too large; see index.
 */
int ipcd_send(struct ipcd_client *c, const char *queue, const struct ipcd_message *messages, size_t count, struct ipcd_sent *sent);

/* ---- Receiving ---- */

/* A message as it is handed out. All that it points to lives as long as the ipcd_deliveries. */
struct ipcd_delivery {
	struct ipcd_message message; /* no string is NULL; the schedule, which is over, is 0 */
	const char *queue;
	uint64_t sequence;
	int64_t send_time_ns;
	uint32_t attempts;             /* how many leases of this message ended in nack, expiry or a broken stream */
	int64_t lease_expire_time_ns;  /* 0: it was consumed at once */
	const char *receipt;           /* names this delivery, and no later one, when settling; "" if it was consumed at once */
	uint64_t truncated_from;       /* the length of the whole body, if it was cut */
};

struct ipcd_deliveries {
	size_t count;
	struct ipcd_delivery *items;
};

struct ipcd_receive_options {
	uint32_t max_messages;         /* 1 to IPCD_RECEIVE_MESSAGES; 0: 1 */
	struct ipcd_selector selector;
	int64_t wait_ms;               /* for the first message; 0: not at all; IPCD_FOREVER */
	int64_t lease_ms;              /* 0: the queue's */
	bool consume;                  /* the messages count as consumed when they are handed out; nothing is to be settled */
	uint64_t max_body_size;        /* of one body; 0: any. A larger one stays queued, with -E2BIG, unless truncate is set. */
	bool truncate;
	const char *const *queues;     /* with ipcd_receive's queue NULL: receive from these, fair among them */
	size_t queues_count;
};

/*
 * Receives up to max_messages as soon as something matches: returns how many; 0: nothing came within the wait. Unless 0
 * or an error is returned, *out is to be freed with ipcd_deliveries_free; else it is NULL. options may be NULL: lease
 * one that is ready.
 *
 * Leased messages come again unless they are settled before lease_expire_time_ns. Should the connection break, the
 * client asks again for the rest of the wait, at least ten seconds; with consume the result is rather -ECONNRESET, for
 * messages may be lost. With consume, that is so of -EINTR and -ETIMEDOUT too.
 */
int ipcd_receive(struct ipcd_client *c, const char *queue, const struct ipcd_receive_options *options, struct ipcd_deliveries **out);

/* Frees deliveries and all they point to; NULL is ignored. It settles nothing. */
void ipcd_deliveries_free(struct ipcd_deliveries *d);

/* ---- Settling ---- */

enum ipcd_outcome {
	IPCD_ACK = 0, /* done: remove it */
	IPCD_NACK,    /* failed: it counts as an attempt and comes again */
	IPCD_TOUCH,   /* restart the lease from now */
	IPCD_RELEASE, /* give it back, without counting an attempt */
	IPCD_BURY     /* set it aside until it is kicked */
};

/* What becomes of one delivery. */
struct ipcd_settlement {
	const char *receipt;
	enum ipcd_outcome outcome;
	int64_t delay_ms;   /* IPCD_NACK: before it comes again; 0: at once; IPCD_BACKOFF: the queue's back-off */
	int64_t lease_ms;   /* IPCD_TOUCH: from now; 0: as long as it was */
	const char *reason; /* IPCD_NACK and IPCD_BURY: why; at most 256 bytes */
	/* Set by ipcd_settle: */
	int result;                   /* 0, or a negative errno, such as -ESTALE: the delivery is over */
	int64_t lease_expire_time_ns; /* IPCD_TOUCH: the lease's new end */
};

/*
 * Settles up to IPCD_SETTLEMENTS deliveries, of any queues, each for itself. 0: all are done. Otherwise, if the daemon
 * answered, the first result that is not 0, with its index in ipcd_last_error; each settlement has its own. If it did
 * not (-ECONNREFUSED, -ETIMEDOUT), all have that result and it is open which are done: settling again is harmless.
 */
int ipcd_settle(struct ipcd_client *c, struct ipcd_settlement *settlements, size_t count);

/* The same for one delivery. */
int ipcd_ack(struct ipcd_client *c, const char *receipt);
int ipcd_nack(struct ipcd_client *c, const char *receipt, int64_t delay_ms, const char *reason);
int ipcd_touch(struct ipcd_client *c, const char *receipt, int64_t lease_ms, int64_t *lease_expire_time_ns /* may be NULL */);
int ipcd_release(struct ipcd_client *c, const char *receipt);
int ipcd_bury(struct ipcd_client *c, const char *receipt, const char *reason);

/* ---- Peeking: it changes nothing ---- */

enum { /* states of a message; they add up */
	IPCD_READY = 1u << 1,   /* can be received now */
	IPCD_DELAYED = 1u << 2, /* waits for its delay or back-off to pass */
	IPCD_LEASED = 1u << 3,  /* handed to a receiver that has not settled it yet */
	IPCD_BURIED = 1u << 4   /* set aside until it is kicked */
};

struct ipcd_peek_options {
	uint32_t max_messages;   /* of the page: 1 to IPCD_PEEK_MESSAGES; 0: 100 */
	struct ipcd_selector selector;
	unsigned states;         /* 0: IPCD_READY */
	uint64_t min_sequence;   /* this and the next: 0: no bound */
	uint64_t max_sequence;
	int64_t older_than_ms;   /* sent at least this long ago; 0: at any time */
	uint64_t max_body_size;  /* bodies are cut to this many bytes; 0: whole */
	const char *cursor;      /* of the page before, with the same filter */
};

struct ipcd_peeked {
	struct ipcd_message message; /* as in ipcd_delivery */
	uint64_t sequence;
	int64_t send_time_ns;
	unsigned state;               /* IPCD_READY, ... */
	uint32_t attempts;
	int64_t due_time_ns;          /* when a delayed message becomes ready */
	int64_t lease_expire_time_ns; /* of a leased message */
	int64_t expire_time_ns;       /* when its TTL ends */
	const char *bury_reason;
	uint64_t truncated_from;
};

struct ipcd_page {
	size_t count;
	struct ipcd_peeked *items;
	const char *cursor; /* where the next page begins; NULL: this is the last */
};

/*
 * Shows a page of a queue's messages: returns how many. Free it with ipcd_page_free unless an error is returned. A page
 * may have fewer messages than asked for, even none, before the last. options may be NULL.
 */
int ipcd_peek(struct ipcd_client *c, const char *queue, const struct ipcd_peek_options *options, struct ipcd_page **out);
void ipcd_page_free(struct ipcd_page *p); /* NULL is ignored */

/* ---- Request and reply ---- */

/*
 * Sends a message and waits for the answer to it: 1, and *reply holds the answer, which is consumed already and to be
 * freed with ipcd_deliveries_free. The client's timeout spans both. The answer comes to a temporary queue of the
 * client's own, which lives as long as its connection; request->reply_to is not used, a correlation_id is made up if
 * there is none. -ETIMEDOUT: no answer came (one that comes later is dropped); -ECONNRESET: the connection broke, and
 * it is open whether the request was stored, or answered.
 */
int ipcd_request(struct ipcd_client *c, const char *queue, const struct ipcd_message *request, struct ipcd_deliveries **reply);

/*
 * Answers a request: sends reply to its reply_to with its correlation_id; what reply says of these is not used. It does
 * not settle the request: do that after. -EINVAL: the delivery asks for no answer. -ENOENT, -EIDRM: there is no
 * such queue (any more): who asked is gone if its name begins with /tmp., as those of temporary queues do; any other is
 * a mistake.
 */
int ipcd_reply(struct ipcd_client *c, const struct ipcd_delivery *request, const struct ipcd_message *reply);

/* ---- Queues ---- */

enum ipcd_overflow { /* what a full queue does with a send */
	IPCD_OVERFLOW_DEFAULT = 0,
	IPCD_OVERFLOW_REJECT,      /* refuse it: -EAGAIN */
	IPCD_OVERFLOW_BLOCK,       /* let the sender wait */
	IPCD_OVERFLOW_DROP_OLDEST  /* drop the oldest ready message of the lowest priority */
};

enum ipcd_durability { /* what survives a crash */
	IPCD_DURABILITY_DEFAULT = 0,
	IPCD_DURABILITY_JOURNAL, /* everything that was acknowledged */
	IPCD_DURABILITY_MEMORY   /* nothing but the queue's definition */
};

enum ipcd_mqueue { /* which POSIX message queues stand before the queue */
	IPCD_MQUEUE_DEFAULT = 0,
	IPCD_MQUEUE_AUTO, /* in, where kernel limits allow */
	IPCD_MQUEUE_IN,
	IPCD_MQUEUE_OUT,
	IPCD_MQUEUE_BOTH,
	IPCD_MQUEUE_NONE
};

/* The settings that programs choose most often; ipcctl has all. 0 and NULL: the default. */
struct ipcd_queue_settings {
	uint64_t max_messages;         /* in any state */
	uint64_t max_bytes;            /* of bodies, headers and ids, in any state */
	uint64_t max_message_size;     /* of one body, at most 16 MiB */
	int64_t lease_ms;
	uint32_t max_attempts;         /* failed leases, after which a message is dead-lettered or buried */
	const char *dead_letter_queue;
	enum ipcd_overflow overflow;
	enum ipcd_durability durability;
	enum ipcd_mqueue mqueue;
	uint32_t mode;                 /* permission bits, as of a file: look = read, send = write, receive = both */
	bool exclusive;                /* fail with -EEXIST even where the settings are the same */
};

/*
 * Makes a queue; settings may be NULL. Where one with the same settings exists it succeeds, and *created, unless
 * created is NULL, is false. -EEXIST: there is one with others.
 */
int ipcd_create_queue(struct ipcd_client *c, const char *queue, const struct ipcd_queue_settings *settings, bool *created);

/* Deletes a queue, and with it *messages messages; messages may be NULL. */
int ipcd_delete_queue(struct ipcd_client *c, const char *queue, uint64_t *messages);

#ifdef __cplusplus
}
#endif
#endif
