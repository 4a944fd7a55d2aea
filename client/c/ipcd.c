//go:build ignore

/*
 * ipcd.c: see ipcd.h. It needs Linux, C11 and libnghttp2 1.40 or later:
 *
 *     cc -O2 app.c ipcd.c -lnghttp2
 *
 * From the bottom up: errors; protobuf; the connection (HTTP/2); a call (gRPC); what the header promises.
 * (The first line keeps Go's tools away from this file.)
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "ipcd.h"

#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX (32u << 20)        /* bytes of a gRPC message, either way */
#define PREFIX 5                     /* bytes before each: a flag and its length */
#define OUT_ROOM (64u << 10)         /* bytes of HTTP/2 that wait to be written */
#define FRAME_ROOM (17u << 10)       /* and what one frame of nghttp2's may take of them */
#define IN_ROOM (64u << 10)          /* bytes read at once */
#define STREAM_WINDOW (4 << 20)      /* HTTP/2 flow control */
#define CONNECTION_WINDOW (16 << 20)
#define HEADERS_MAX 64               /* of a message */
#define DETAILS_MAX (64u << 10)      /* bytes of an error's details, in base64 */
#define PAGE_BYTES (32u << 20)       /* a page of peek ends once it is this large */
#define WAIT_MAX_MS INT64_C(86400000)      /* of one receive at the daemon */
#define RESEND_MS INT64_C(60000)     /* how long a batch may be sent again: half of what the daemon remembers it for */
#define RECEIVE_PATIENCE_MS INT64_C(10000)
#define INSTANCE_TRIES 4             /* how often a batch that was not stored follows the daemon to a new instance */
#define RECONNECT_MS 20              /* before the first try to connect again; doubled each time */
#define RECONNECT_MAX_MS 2000

static const char system_socket[] = "/run/ipcd/ipcd.sock";

/* ---- Errors ---- */

enum { /* gRPC status codes */
	GRPC_OK = 0, GRPC_CANCELLED = 1, GRPC_UNKNOWN = 2, GRPC_INVALID_ARGUMENT = 3, GRPC_DEADLINE_EXCEEDED = 4, GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6, GRPC_PERMISSION_DENIED = 7, GRPC_RESOURCE_EXHAUSTED = 8, GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10, GRPC_OUT_OF_RANGE = 11, GRPC_UNIMPLEMENTED = 12, GRPC_INTERNAL = 13, GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15, GRPC_UNAUTHENTICATED = 16
};

/* The table of reasons, as far as calls of this client can meet them. */
static const struct row {
	const char *reason;
	int code, error;
} rows[] = {
	{"INTERNAL", GRPC_INTERNAL, EPROTO}, /* first: it stands for those that are not here */
	{"INVALID_ARGUMENT", GRPC_INVALID_ARGUMENT, EINVAL},
	{"QUEUE_NOT_FOUND", GRPC_NOT_FOUND, ENOENT},
	{"QUEUE_EXISTS", GRPC_ALREADY_EXISTS, EEXIST},
	{"QUEUE_FULL", GRPC_RESOURCE_EXHAUSTED, EAGAIN},
	{"QUOTA_EXCEEDED", GRPC_RESOURCE_EXHAUSTED, EDQUOT},
	{"MESSAGE_TOO_LARGE", GRPC_INVALID_ARGUMENT, EMSGSIZE},
	{"BUFFER_TOO_SMALL", GRPC_OUT_OF_RANGE, E2BIG},
	{"STALE_RECEIPT", GRPC_FAILED_PRECONDITION, ESTALE},
	{"DURABILITY_MISMATCH", GRPC_FAILED_PRECONDITION, EINVAL},
	{"QUEUE_DELETED", GRPC_ABORTED, EIDRM},
	{"ACCESS_DENIED", GRPC_PERMISSION_DENIED, EACCES},
	{"DISK_FULL", GRPC_RESOURCE_EXHAUSTED, ENOSPC},
	{"DAMAGED", GRPC_DATA_LOSS, EBADMSG},
	{"KERNEL_LIMIT", GRPC_RESOURCE_EXHAUSTED, EMFILE},
	{"TIMED_OUT", GRPC_DEADLINE_EXCEEDED, ETIMEDOUT},
	{"UNHEALTHY", GRPC_UNAVAILABLE, EIO},
	{"SHUTTING_DOWN", GRPC_UNAVAILABLE, ESHUTDOWN},
	{"UNIMPLEMENTED", GRPC_UNIMPLEMENTED, ENOSYS},
	{"OUTCOME_UNKNOWN", GRPC_ABORTED, ECONNRESET},
	{"STALE_BATCH", GRPC_FAILED_PRECONDITION, ESTALE},
	{"KERNEL_NAME_TAKEN", GRPC_FAILED_PRECONDITION, EEXIST},
	{"DEAD_LETTER_CYCLE", GRPC_FAILED_PRECONDITION, ELOOP},
	{"BIND_CYCLE", GRPC_FAILED_PRECONDITION, ELOOP},
	{"SCHEMA_MISMATCH", GRPC_INVALID_ARGUMENT, EBADMSG},
	{"UNAUTHENTICATED", GRPC_UNAUTHENTICATED, EACCES},
	{"CANCELLED", GRPC_CANCELLED, EINTR},
	{"UNREACHABLE", GRPC_UNAVAILABLE, ECONNREFUSED},
	{"OUT_OF_MEMORY", GRPC_RESOURCE_EXHAUSTED, ENOMEM}, /* of this process */
};

static const struct row *row_of(const char *reason)
{
	for (size_t i = 1; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(rows[i].reason, reason) == 0)
			return &rows[i];
	return &rows[0];
}

/* The reason of a status that did not come from ipcd but from gRPC underneath. */
static const char *reason_of(int code)
{
	switch (code) {
	case GRPC_INVALID_ARGUMENT:
	case GRPC_OUT_OF_RANGE:
		return "INVALID_ARGUMENT";
	case GRPC_NOT_FOUND:
		return "QUEUE_NOT_FOUND";
	case GRPC_RESOURCE_EXHAUSTED:
		return "QUOTA_EXCEEDED";
	case GRPC_PERMISSION_DENIED:
		return "ACCESS_DENIED";
	case GRPC_UNAUTHENTICATED:
		return "UNAUTHENTICATED";
	case GRPC_UNAVAILABLE:
		return "UNREACHABLE";
	case GRPC_DEADLINE_EXCEEDED:
		return "TIMED_OUT";
	case GRPC_UNIMPLEMENTED:
		return "UNIMPLEMENTED";
	default:
		return "INTERNAL";
	}
}

/* Copies text of any origin, cut to the room and ended with NUL. */
static void copy_text(char *to, size_t room, const void *from, size_t size)
{
	if (size > room - 1)
		size = room - 1;
	if (size > 0)
		memcpy(to, from, size);
	to[size] = 0;
}

static void set_reason(struct ipcd_error *e, const char *reason, size_t size)
{
	copy_text(e->reason, sizeof e->reason, reason, size);
	e->result = -row_of(e->reason)->error;
}

/* Fills in an error that is found on this side. Returns its result. */
__attribute__((format(printf, 3, 4))) static int fail(struct ipcd_error *e, const char *reason, const char *format, ...)
{
	va_list arguments;
	char message[sizeof e->message]; /* the arguments may be of e itself */
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	memset(e, 0, sizeof *e);
	memcpy(e->message, message, sizeof message);
	e->index = -1;
	e->code = row_of(reason)->code;
	set_reason(e, reason, strlen(reason));
	return e->result;
}

static int no_memory(struct ipcd_error *e) { return fail(e, "OUT_OF_MEMORY", "there is no memory left for this call"); }

static bool is(const struct ipcd_error *e, const char *reason) { return strcmp(e->reason, reason) == 0; }

static bool given(const char *text) { return text != NULL && *text != 0; }

/* ---- Protobuf, written ---- */

/* Bytes that grow. What did not fit memory or FRAME_MAX is told by `failed` alone, so that callers ask once. */
struct buffer {
	uint8_t *data;
	size_t size, room;
	int failed; /* 0, ENOMEM, EMSGSIZE, or EILSEQ: a text is not UTF-8 */
};

static void buffer_free(struct buffer *b)
{
	free(b->data);
	memset(b, 0, sizeof *b);
}

/* Makes room for more bytes, and one beyond. NULL: it failed. */
static uint8_t *room_for(struct buffer *b, size_t more, size_t limit)
{
	if (b->failed != 0)
		return NULL;
	if (more > limit || b->size > limit - more) {
		b->failed = EMSGSIZE;
		return NULL;
	}
	size_t need = b->size + more + 1;
	if (need > b->room) {
		size_t room = b->room < 512 ? 512 : b->room * 2;
		if (room < need)
			room = need;
		uint8_t *data = (uint8_t *)realloc(b->data, room);
		if (data == NULL) {
			b->failed = ENOMEM;
			return NULL;
		}
		b->data = data;
		b->room = room;
	}
	return b->data + b->size;
}

static void append(struct buffer *b, const void *bytes, size_t size, size_t limit)
{
	uint8_t *to = room_for(b, size, limit);
	if (to != NULL && size > 0) {
		memcpy(to, bytes, size);
		b->size += size;
	}
}

static void put(struct buffer *b, const void *bytes, size_t size) { append(b, bytes, size, FRAME_MAX); }

static void put_varint(struct buffer *b, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;
	for (; v >= 0x80; v >>= 7)
		bytes[n++] = (uint8_t)(v | 0x80);
	bytes[n++] = (uint8_t)v;
	put(b, bytes, n);
}

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

#define TAG(field, wire) ((uint64_t)(field) << 3 | (wire))

static void put_number_always(struct buffer *b, uint32_t field, uint64_t v)
{
	put_varint(b, TAG(field, VARINT));
	put_varint(b, v);
}

static void put_number(struct buffer *b, uint32_t field, uint64_t v)
{
	if (v != 0)
		put_number_always(b, field, v);
}

static void put_bytes(struct buffer *b, uint32_t field, const void *bytes, size_t size)
{
	put_varint(b, TAG(field, BYTES));
	put_varint(b, size);
	put(b, bytes, size);
}

/* How long the UTF-8 character at s is; 0: it is none. See RFC 3629. */
static size_t character(const uint8_t *s)
{
	if (s[0] < 0x80)
		return 1;
	size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : s[0] >= 0xe0 && s[0] <= 0xef ? 3 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80) /* NUL is not, so nothing is read behind the end */
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static void put_text_always(struct buffer *b, uint32_t field, const char *text)
{
	const char *s = text == NULL ? "" : text;
	for (const uint8_t *at = (const uint8_t *)s; *at != 0;) {
		size_t n = character(at);
		if (n == 0) {
			if (b->failed == 0)
				b->failed = EILSEQ;
			return;
		}
		at += n;
	}
	put_bytes(b, field, s, strlen(s));
}

static void put_text(struct buffer *b, uint32_t field, const char *text)
{
	if (given(text))
		put_text_always(b, field, text);
}

/*
 * Begins a message within the message, and ends it. Its length is written as a varint of always four bytes, which may have
 * leading zeros, so that nothing needs to be measured before or moved after: FRAME_MAX fits.
 */
static size_t begin(struct buffer *b, uint32_t field)
{
	put_varint(b, TAG(field, BYTES));
	put(b, "\0\0\0\0", 4);
	return b->size;
}

static void end(struct buffer *b, size_t begun)
{
	if (b->failed != 0)
		return;
	size_t size = b->size - begun;
	for (size_t i = 0; i < 4; i++)
		b->data[begun - 4 + i] = (uint8_t)((size >> 7 * i & 0x7f) | (i < 3 ? 0x80 : 0));
}

/* A google.protobuf.Duration of milliseconds. */
static void put_span_always(struct buffer *b, uint32_t field, int64_t ms)
{
	size_t begun = begin(b, field);
	put_number(b, 1, (uint64_t)(ms / 1000));
	put_number(b, 2, (uint64_t)(ms % 1000 * 1000000));
	end(b, begun);
}

static void put_span(struct buffer *b, uint32_t field, int64_t ms)
{
	if (ms != 0)
		put_span_always(b, field, ms);
}

static void put_message(struct buffer *b, uint32_t field, const struct ipcd_message *m)
{
	size_t begun = begin(b, field);
	put_number(b, 1, (uint64_t)m->type);
	put_number(b, 2, m->priority);
	if (m->body_size > 0)
		put_bytes(b, 3, m->body, m->body_size);
	for (size_t i = 0; i < m->headers_count; i++) {
		size_t header = begin(b, 4);
		put_text_always(b, 1, m->headers[i].name);
		put_bytes(b, 2, m->headers[i].value, m->headers[i].value_size);
		end(b, header);
	}
	put_span(b, 5, m->delay_ms);
	put_span(b, 7, m->ttl_ms);
	put_text(b, 8, m->dedup_id);
	put_text(b, 9, m->correlation_id);
	put_text(b, 10, m->reply_to);
	put_text(b, 11, m->content_type);
	end(b, begun);
}

static void put_selector(struct buffer *b, uint32_t field, const struct ipcd_selector *s)
{
	if (s->kind == IPCD_ANY)
		return;
	size_t begun = begin(b, field);
	if (s->kind == IPCD_TYPES) {
		size_t set = begin(b, 4), types = begin(b, 1); /* packed */
		for (size_t i = 0; i < s->types_count; i++)
			put_varint(b, (uint64_t)s->types[i]);
		end(b, types);
		end(b, set);
	} else {
		put_number_always(b, s->kind == IPCD_TYPE ? 1 : s->kind == IPCD_UPTO ? 2 : 3, (uint64_t)s->type);
	}
	end(b, begun);
}

/* ---- Protobuf, read ---- */

/*
 * Reads the fields of a message. With `ending` it overwrites each tag that it has read with NUL, which ends the field before:
 * so strings can be used where they lie. (Behind the last byte of all there is a NUL anyway: see room_for.)
 */
struct reader {
	uint8_t *at, *end;
	bool ending, bad;
	uint64_t tag;   /* of the present field: TAG(field, wire) */
	uint64_t number; /* VARINT, FIXED64, FIXED32 */
	uint8_t *bytes; /* BYTES */
	size_t size;
};

static bool bad(struct reader *r)
{
	r->bad = true;
	return false;
}

static bool get_varint(struct reader *r, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		if (r->at == r->end)
			return bad(r);
		uint8_t byte = *r->at++;
		if (shift == 63 && byte > 1)
			return bad(r);
		*v |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return bad(r);
}

/* Reads the next field. false: there is none, or the bytes make no sense (r->bad). */
static bool next(struct reader *r)
{
	uint8_t *start = r->at;
	if (r->bad || r->at == r->end)
		return false;
	if (!get_varint(r, &r->tag))
		return false;
	if (r->tag >> 3 == 0 || r->tag >> 3 > 0x1fffffff)
		return bad(r);
	if (r->ending)
		*start = 0;
	uint64_t size;
	switch (r->tag & 7) {
	case VARINT:
		return get_varint(r, &r->number);
	case BYTES:
		if (!get_varint(r, &size) || size > (uint64_t)(r->end - r->at))
			return bad(r);
		r->bytes = r->at;
		r->size = (size_t)size;
		r->at += size;
		return true;
	case FIXED64:
	case FIXED32:
		size = (r->tag & 7) == FIXED64 ? 8 : 4;
		if (size > (uint64_t)(r->end - r->at))
			return bad(r);
		r->number = 0;
		for (uint64_t i = 0; i < size; i++)
			r->number |= (uint64_t)r->at[i] << 8 * i;
		r->at += size;
		return true;
	default: /* groups, which ipcd does not use */
		return bad(r);
	}
}

/* A reader of the present field, which is a message. */
static struct reader inner(const struct reader *r)
{
	struct reader in;
	memset(&in, 0, sizeof in);
	in.at = r->bytes;
	in.end = r->bytes + r->size;
	in.ending = r->ending;
	return in;
}

/* The present field as seconds and nanoseconds, in units of which a second has `units`. Out of range: the nearest there is. */
static int64_t get_time(struct reader *r, int64_t units)
{
	struct reader in = inner(r);
	int64_t seconds = 0, nanos = 0;
	while (next(&in)) {
		if (in.tag == TAG(1, VARINT))
			seconds = (int64_t)in.number;
		else if (in.tag == TAG(2, VARINT))
			nanos = (int64_t)in.number;
	}
	if (in.bad || nanos < -999999999 || nanos > 999999999) {
		r->bad = true;
		return 0;
	}
	if (seconds >= INT64_MAX / units || seconds <= INT64_MIN / units)
		return seconds > 0 ? INT64_MAX : INT64_MIN;
	return seconds * units + nanos / (1000000000 / units);
}

static int64_t get_instant(struct reader *r) { return get_time(r, 1000000000); }
static int64_t get_span(struct reader *r) { return get_time(r, 1000); }

static const char *get_text(const struct reader *r) { return (const char *)r->bytes; }

/* ---- The connection ---- */

/* One gRPC call, on one HTTP/2 stream. */
struct call {
	int32_t stream;          /* -1: none */
	const struct buffer *request; /* PREFIX and the message */
	size_t request_at;       /* how much of it was taken */
	bool sent;               /* all of it was: the daemon may act on it */
	bool ended;              /* nothing more comes */
	uint32_t reset;          /* the HTTP/2 error that ended it, or 0 */
	int http;                /* status, or 0 */
	int code;                /* gRPC status, or -1: none came */
	char text[1024];         /* its message, percent-encoded */
	struct buffer details;   /* google.rpc.Status in base64 */
	struct buffer answer;    /* PREFIX and a message, as often as they come */
	size_t answer_max;
};

struct ipcd_client {
	struct ipcd_error error;
	char path[sizeof ((struct sockaddr_un *)0)->sun_path];
	char user_agent[240];
	int64_t timeout_ms;
	pid_t pid;           /* to which the connection and the producer belong */

	int socket;          /* -1: none */
	nghttp2_session *session;
	bool broken;         /* of no use any more; why says why */
	bool leaving;        /* the daemon takes no more calls on it */
	char why[160];
	uint8_t *out;        /* OUT_ROOM */
	size_t out_size, out_sent;

	char instance[64];   /* of the daemon, as asked on this connection; "": not yet */
	char producer[40];   /* under which this client sends; "": none yet */
	uint64_t batch;      /* the last batch id */

	struct call replies; /* OpenTemporaryQueue, as long as it lasts */
	bool replies_open;
	char reply_queue[256];
	uint64_t requests;   /* so far */
};

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ms after now, where INT64_MAX is never. */
static int64_t after(int64_t ms)
{
	int64_t now = now_ms();
	return ms < 0 || ms >= INT64_MAX - now ? INT64_MAX : now + ms;
}

static int64_t left_until(int64_t deadline)
{
	if (deadline == INT64_MAX)
		return INT64_MAX;
	int64_t left = deadline - now_ms();
	return left < 0 ? 0 : left;
}

/* Sleeps. false: a signal handler ran meanwhile. */
static bool sleep_ms(int64_t ms)
{
	bool undisturbed = true;
	struct timespec t;
	t.tv_sec = (time_t)(ms / 1000);
	t.tv_nsec = (long)(ms % 1000 * 1000000);
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		undisturbed = false;
	return undisturbed;
}

__attribute__((format(printf, 2, 3))) static int broke(struct ipcd_client *c, const char *format, ...)
{
	if (!c->broken) {
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(c->why, sizeof c->why, format, arguments);
		va_end(arguments);
		c->broken = true;
	}
	return -EPIPE;
}

static void call_free(struct call *k)
{
	buffer_free(&k->details);
	buffer_free(&k->answer);
	k->stream = -1;
}

/* Gives the connection up. Nothing is written to it, so that a child may do so with its parent's. */
static void hang_up(struct ipcd_client *c)
{
	nghttp2_session_del(c->session);
	c->session = NULL;
	if (c->socket >= 0)
		close(c->socket);
	c->socket = -1;
	c->broken = c->leaving = false;
	c->out_size = c->out_sent = 0;
	c->instance[0] = 0;
	call_free(&c->replies);
	c->replies_open = false;
	c->reply_queue[0] = 0;
}

static struct call *call_of(nghttp2_session *session, int32_t stream)
{
	return (struct call *)nghttp2_session_get_stream_user_data(session, stream);
}

static ssize_t on_request_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
	nghttp2_data_source *source, void *user)
{
	struct call *k = call_of(session, stream);
	(void)source, (void)user;
	if (k == NULL || k->request == NULL)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* it was given up */
	size_t n = k->request->size - k->request_at;
	if (n > room)
		n = room;
	memcpy(to, k->request->data + k->request_at, n);
	k->request_at += n;
	if (k->request_at == k->request->size) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		k->sent = true;
	}
	return (ssize_t)n;
}

/* The number that the bytes are, or -1. */
static int small_number(const uint8_t *bytes, size_t size)
{
	int n = 0;
	if (size == 0 || size > 9)
		return -1;
	for (size_t i = 0; i < size; i++) {
		if (bytes[i] < '0' || bytes[i] > '9')
			return -1;
		n = n * 10 + (bytes[i] - '0');
	}
	return n;
}

static bool named(const uint8_t *name, size_t size, const char *is_it) { return size == strlen(is_it) && memcmp(name, is_it, size) == 0; }

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
	const uint8_t *value, size_t value_size, uint8_t flags, void *user)
{
	struct call *k = call_of(session, frame->hd.stream_id);
	(void)flags, (void)user;
	if (k == NULL)
		return 0;
	if (named(name, name_size, ":status")) {
		k->http = small_number(value, value_size);
	} else if (named(name, name_size, "grpc-status")) {
		k->code = small_number(value, value_size);
	} else if (named(name, name_size, "grpc-message")) {
		copy_text(k->text, sizeof k->text, value, value_size);
	} else if (named(name, name_size, "grpc-status-details-bin")) {
		k->details.size = 0;
		append(&k->details, value, value_size, DETAILS_MAX);
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size, void *user)
{
	struct call *k = call_of(session, stream);
	(void)flags, (void)user;
	if (k == NULL)
		return 0;
	append(&k->answer, data, size, k->answer_max);
	if (k->answer.failed != 0)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct ipcd_client *c = (struct ipcd_client *)user;
	if (frame->hd.type == NGHTTP2_GOAWAY) {
		c->leaving = true;
		return 0;
	}
	if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
		struct call *k = call_of(session, frame->hd.stream_id);
		if (k != NULL)
			k->ended = true;
	}
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
	struct call *k = call_of(session, stream);
	(void)user;
	if (k != NULL) {
		k->ended = true;
		k->reset = error;
		k->stream = -1;
	}
	return 0;
}

/* Connects. 0, or an error: nothing was sent to anybody. */
static int dial(struct ipcd_client *c, int64_t deadline)
{
	struct sockaddr_un a;
	memset(&a, 0, sizeof a);
	a.sun_family = AF_UNIX;
	memcpy(a.sun_path, c->path, strlen(c->path)); /* its length was checked by ipcd_open */
	hang_up(c);
	c->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->socket < 0)
		return fail(&c->error, "UNREACHABLE", "unix://%s: socket: %s", c->path, strerror(errno));
	while (connect(c->socket, (const struct sockaddr *)(const void *)&a, sizeof a) != 0) {
		int error = errno;
		if (error == EINTR)
			continue;
		if (error == EAGAIN && left_until(deadline) > 0) { /* too many wait to be accepted */
			sleep_ms(1);
			continue;
		}
		hang_up(c);
		if (error == EACCES || error == EPERM)
			return fail(&c->error, "ACCESS_DENIED",
				"no access to unix://%s: %s; the socket, or a directory before it, is closed to this user", c->path,
				strerror(error));
		return fail(&c->error, "UNREACHABLE", "no ipcd answers at unix://%s: %s; is it running, and is this its address?",
			c->path, strerror(error));
	}

	static const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 64u << 10},
	};
	nghttp2_session_callbacks *callbacks = NULL;
	bool good = nghttp2_session_callbacks_new(&callbacks) == 0;
	if (good) {
		nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
		nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
		nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
		good = nghttp2_session_client_new(&c->session, callbacks, c) == 0 &&
			nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) == 0 &&
			nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0;
	}
	nghttp2_session_callbacks_del(callbacks);
	if (good && c->out == NULL)
		good = (c->out = (uint8_t *)malloc(OUT_ROOM)) != NULL;
	if (good)
		return 0;
	hang_up(c);
	return no_memory(&c->error);
}

/* Writes what can be written without waiting. 0, or -EPIPE. */
static int flush(struct ipcd_client *c)
{
	for (;;) {
		bool more = true;
		while (more && OUT_ROOM - c->out_size >= FRAME_ROOM) { /* several frames for one system call */
			const uint8_t *frame;
			ssize_t n = nghttp2_session_mem_send(c->session, &frame);
			if (n < 0 || (size_t)n > OUT_ROOM - c->out_size)
				return broke(c, "HTTP/2: %s", n < 0 ? nghttp2_strerror((int)n) : "a frame is too large");
			if (n > 0)
				memcpy(c->out + c->out_size, frame, (size_t)n);
			c->out_size += (size_t)n;
			more = n > 0;
		}
		if (c->out_sent == c->out_size)
			return 0;
		ssize_t n = send(c->socket, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0)
			return broke(c, "%s", strerror(errno));
		c->out_sent += (size_t)n;
		if (c->out_sent == c->out_size)
			c->out_sent = c->out_size = 0;
	}
}

/* Takes in what is there without waiting. 0: something was, -EAGAIN: nothing, or -EPIPE. */
static int take_in(struct ipcd_client *c)
{
	uint8_t bytes[IN_ROOM];
	ssize_t n;
	do
		n = recv(c->socket, bytes, sizeof bytes, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (n < 0)
		return broke(c, "%s", strerror(errno));
	if (n == 0)
		return broke(c, "the daemon hung up");
	ssize_t taken = nghttp2_session_mem_recv(c->session, bytes, (size_t)n);
	if (taken < 0)
		return broke(c, "what answers does not speak HTTP/2 as it should: %s", nghttp2_strerror((int)taken));
	if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
		return broke(c, "the connection was ended");
	return 0;
}

/* Writes, waits and reads once, for a call. 0, -EPIPE, -ETIMEDOUT, or -EINTR if a signal handler ran and that matters. */
static int turn(struct ipcd_client *c, const struct call *k, int64_t deadline, bool interruptible)
{
	struct pollfd p;
	if (flush(c) != 0)
		return -EPIPE;
	if (k->ended) /* nghttp2, or on_data, reset the stream, and that is written now */
		return 0;
	if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session) && c->out_size == 0)
		return broke(c, "the connection was ended");
	int64_t left = left_until(deadline);
	if (left == 0)
		return -ETIMEDOUT; /* even if something comes all the time */
	p.fd = c->socket;
	p.events = (short)(POLLIN | (c->out_size > 0 ? POLLOUT : 0));
	p.revents = 0;
	int n = poll(&p, 1, left > 3600000 ? 3600000 : (int)left);
	if (n < 0 && errno == EINTR)
		return interruptible ? -EINTR : 0;
	if (n < 0)
		return broke(c, "poll: %s", strerror(errno));
	if (n == 0 || (p.revents & (POLLIN | POLLERR | POLLHUP)) == 0)
		return 0;
	int result = take_in(c);
	return result == -EAGAIN ? 0 : result;
}

/* Makes sure of a connection that takes calls. What the daemon said since the last call counts first: it may have gone. */
static int connected(struct ipcd_client *c, int64_t deadline)
{
	if (c->session != NULL && !c->broken) {
		int result;
		while ((result = take_in(c)) == 0 && left_until(deadline) > 0)
			;
		if (result == -EAGAIN)
			flush(c);
	}
	if (c->session != NULL && !c->broken && !c->leaving && nghttp2_session_check_request_allowed(c->session))
		return 0;
	return dial(c, deadline);
}

/* ---- A call ---- */

static void call_init(struct call *k, const struct buffer *request)
{
	memset(k, 0, sizeof *k);
	k->stream = -1;
	k->code = -1;
	k->request = request;
	k->answer_max = FRAME_MAX + PREFIX;
}

/* Begins a request: room for the prefix of the message that the caller then writes. */
static void begin_request(struct buffer *b)
{
	memset(b, 0, sizeof *b);
	put(b, "\0\0\0\0\0", PREFIX);
}

/* Ends it: writes the length into the prefix. 0, or an error. */
static int end_request(struct ipcd_client *c, struct buffer *b)
{
	if (b->failed == EMSGSIZE)
		return fail(&c->error, "MESSAGE_TOO_LARGE", "the request is larger than %u bytes: send several", FRAME_MAX);
	if (b->failed == EILSEQ)
		return fail(&c->error, "INVALID_ARGUMENT",
			"a name, an id or another text is not UTF-8: bytes of other kinds belong in a body or a header's value");
	if (b->failed != 0)
		return no_memory(&c->error);
	size_t size = b->size - PREFIX;
	for (size_t i = 0; i < 4; i++)
		b->data[1 + i] = (uint8_t)(size >> 8 * (3 - i));
	return 0;
}

static nghttp2_nv pair(const char *name, const char *value)
{
	nghttp2_nv v;
	v.name = (uint8_t *)(uintptr_t)name;
	v.namelen = strlen(name);
	v.value = (uint8_t *)(uintptr_t)value;
	v.valuelen = strlen(value);
	v.flags = NGHTTP2_NV_FLAG_NONE; /* nghttp2 copies them */
	return v;
}

/* Hands the call to the connection. 0, or an error. */
static int call_begin(struct ipcd_client *c, struct call *k, const char *path, int64_t deadline)
{
	char timeout[24];
	int64_t left = left_until(deadline);
	nghttp2_nv headers[8];
	size_t n = 0;
	headers[n++] = pair(":method", "POST");
	headers[n++] = pair(":scheme", "http");
	headers[n++] = pair(":path", path);
	headers[n++] = pair(":authority", "localhost");
	headers[n++] = pair("te", "trailers");
	headers[n++] = pair("content-type", "application/grpc");
	headers[n++] = pair("user-agent", c->user_agent);
	if (deadline != INT64_MAX) { /* a number of at most 8 digits, and its unit */
		bool fits = left < 100000000;
		snprintf(timeout, sizeof timeout, "%lld%c",
			(long long)(fits ? left : left / 1000 < 99999999 ? left / 1000 : 99999999), fits ? 'm' : 'S');
		headers[n++] = pair("grpc-timeout", timeout);
	}
	nghttp2_data_provider body;
	body.source.ptr = NULL;
	body.read_callback = on_request_body;
	int32_t stream = nghttp2_submit_request(c->session, NULL, headers, n, &body, k);
	if (stream == NGHTTP2_ERR_NOMEM)
		return no_memory(&c->error);
	if (stream < 0) {
		broke(c, "HTTP/2: %s", nghttp2_strerror((int)stream));
		return fail(&c->error, "UNREACHABLE", "the connection to unix://%s takes no calls: %s", c->path, nghttp2_strerror((int)stream));
	}
	k->stream = stream;
	return 0;
}

/* Takes leave of a call that was begun, whatever its state: its memory is not used any more. */
static void call_end(struct ipcd_client *c, struct call *k)
{
	if (k->stream >= 0 && c->session != NULL) {
		nghttp2_session_set_stream_user_data(c->session, k->stream, NULL);
		nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, k->stream, NGHTTP2_CANCEL);
		if (!c->broken)
			flush(c);
	}
	call_free(k);
}

static int digit_of(uint8_t b)
{
	if (b >= 'A' && b <= 'Z')
		return b - 'A';
	if (b >= 'a' && b <= 'z')
		return b - 'a' + 26;
	if (b >= '0' && b <= '9')
		return b - '0' + 52;
	return b == '+' ? 62 : b == '/' ? 63 : -1;
}

/* Decodes base64 in place. false: it is none. */
static bool from_base64(struct buffer *b)
{
	uint32_t bits = 0;
	unsigned count = 0;
	size_t n = 0, size = b->size;
	while (size > 0 && b->data[size - 1] == '=')
		size--;
	for (size_t i = 0; i < size; i++) {
		int digit = digit_of(b->data[i]);
		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		count += 6;
		if (count >= 8) {
			count -= 8;
			b->data[n++] = (uint8_t)(bits >> count);
		}
	}
	b->size = n;
	return true;
}

static int hex_of(char b)
{
	if (b >= '0' && b <= '9')
		return b - '0';
	return b >= 'A' && b <= 'F' ? b - 'A' + 10 : b >= 'a' && b <= 'f' ? b - 'a' + 10 : -1;
}

/* Decodes grpc-message in place. */
static void from_percent(char *text)
{
	char *to = text;
	for (const char *at = text; *at != 0; at++) {
		if (at[0] == '%' && hex_of(at[1]) >= 0 && hex_of(at[2]) >= 0) {
			*to = (char)(hex_of(at[1]) << 4 | hex_of(at[2]));
			at += 2;
			if (*to != 0)
				to++;
		} else {
			*to++ = *at;
		}
	}
	*to = 0;
}

static bool text_is(const struct reader *r, const char *text) { return named(r->bytes, r->size, text); }

/* Takes in a google.rpc.ErrorInfo. true: it is ipcd's. */
static bool take_error_info(struct reader *r, struct ipcd_error *e)
{
	const uint8_t *reason = NULL;
	size_t reason_size = 0;
	bool ours = false;
	while (next(r)) {
		if (r->tag == TAG(1, BYTES)) {
			reason = r->bytes;
			reason_size = r->size;
		} else if (r->tag == TAG(2, BYTES)) {
			ours = text_is(r, "ipcd");
		} else if (r->tag == TAG(3, BYTES)) {
			struct reader entry = inner(r);
			bool index = false;
			while (next(&entry)) {
				if (entry.tag == TAG(1, BYTES))
					index = text_is(&entry, "index");
				else if (entry.tag == TAG(2, BYTES) && index)
					e->index = small_number(entry.bytes, entry.size);
			}
		}
	}
	if (r->bad || !ours || reason_size == 0)
		return false;
	set_reason(e, (const char *)reason, reason_size);
	return true;
}

/* Takes in grpc-status-details-bin. true: an ErrorInfo of ipcd was there. */
static bool take_details(struct call *k, struct ipcd_error *e)
{
	static const char error_info[] = "type.googleapis.com/google.rpc.ErrorInfo", retry_info[] = "type.googleapis.com/google.rpc.RetryInfo";
	bool ours = false;
	if (k->details.failed != 0 || k->details.size == 0 || !from_base64(&k->details))
		return false;
	k->details.data[k->details.size] = 0;
	struct reader r;
	memset(&r, 0, sizeof r);
	r.at = k->details.data;
	r.end = r.at + k->details.size;
	while (next(&r)) {
		if (r.tag != TAG(3, BYTES))
			continue;
		struct reader any = inner(&r), value;
		bool info = false, retry = false;
		memset(&value, 0, sizeof value);
		while (next(&any)) {
			if (any.tag == TAG(1, BYTES)) {
				info = text_is(&any, error_info);
				retry = text_is(&any, retry_info);
			} else if (any.tag == TAG(2, BYTES)) {
				value = inner(&any);
			}
		}
		if (info && take_error_info(&value, e))
			ours = true;
		while (retry && next(&value))
			if (value.tag == TAG(1, BYTES))
				e->retry_after_ms = get_span(&value);
	}
	return ours;
}

/* How a call ended. */
enum ending {
	DONE,     /* well */
	ANSWERED, /* ipcd refused it */
	REFUSED,  /* gRPC refused it; or what came makes no sense */
	BROKEN,   /* the connection failed; whether the daemon acted is told by call.sent */
	GIVEN_UP  /* the deadline passed, a signal handler ran, or memory was short */
};

/* Tells how a call ended that has ended, and fills in the error. */
static enum ending verdict(struct ipcd_client *c, struct call *k)
{
	struct ipcd_error *e = &c->error;
	if (k->answer.failed == ENOMEM) {
		no_memory(e);
		return GIVEN_UP;
	}
	if (k->answer.failed != 0) {
		fail(e, "INTERNAL", "the answer is larger than the %zu bytes that it may have", k->answer_max);
		return REFUSED;
	}
	if (k->code < 0 && k->reset == NGHTTP2_REFUSED_STREAM) {
		k->sent = false; /* that is what it says: the daemon did not touch it */
		fail(e, "UNREACHABLE", "the daemon at unix://%s takes no more calls on this connection", c->path);
		return BROKEN;
	}
	if (k->code < 0 || k->http != 200) {
		fail(e, "INTERNAL", "what answers at unix://%s is not gRPC, or broke off (HTTP status %d, HTTP/2 error %u)",
			c->path, k->http, (unsigned)k->reset);
		return REFUSED;
	}
	if (k->code == GRPC_OK)
		return DONE;
	from_percent(k->text);
	char text[sizeof k->text];
	memcpy(text, k->text, sizeof text);
	fail(e, reason_of(k->code), "%s", text[0] != 0 ? text : "the daemon did not say why");
	e->code = k->code;
	if (take_details(k, e))
		return ANSWERED;
	e->retry_after_ms = 0;
	e->index = -1;
	set_reason(e, reason_of(k->code), strlen(reason_of(k->code)));
	return k->code == GRPC_UNAVAILABLE ? BROKEN : REFUSED;
}

/* The error for a turn that did not go well. */
static enum ending stopped(struct ipcd_client *c, int result)
{
	switch (result) {
	case -ETIMEDOUT:
		fail(&c->error, "TIMED_OUT", "the deadline passed");
		return GIVEN_UP;
	case -EINTR:
		fail(&c->error, "CANCELLED", "a signal handler ran while the call waited");
		return GIVEN_UP;
	default:
		fail(&c->error, "UNREACHABLE", "the connection to unix://%s broke: %s", c->path, c->why);
		return BROKEN;
	}
}

/* The bytes of the whole messages at the beginning of an answer. SIZE_MAX: they are no messages. */
static size_t whole(const struct buffer *answer)
{
	size_t at = 0;
	while (answer->size - at >= PREFIX) {
		const uint8_t *p = answer->data + at;
		size_t size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
		if (p[0] != 0 || size > FRAME_MAX) /* compressed, which was not offered, or too large */
			return SIZE_MAX;
		if (size > answer->size - at - PREFIX)
			break;
		at += PREFIX + size;
	}
	return at;
}

/* The next message of an answer that is whole, from *at on. */
static bool next_message(const struct buffer *answer, size_t *at, struct reader *r)
{
	if (*at >= answer->size)
		return false;
	uint8_t *p = answer->data + *at;
	size_t size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	memset(r, 0, sizeof *r);
	r->at = p + PREFIX;
	r->end = r->at + size;
	*at += PREFIX + size;
	return true;
}

static enum ending nonsense(struct ipcd_client *c)
{
	fail(&c->error, "INTERNAL", "the answer of unix://%s makes no sense", c->path);
	return REFUSED;
}

enum { INTERRUPTIBLE = 1, MANY = 2, HARMLESS = 4 /* it may be made twice */ };

/*
 * Makes a call whose connection is there, and waits for its end. After DONE k->answer holds the one message of the
 * answer (with MANY: as many as there are, up to PAGE_BYTES or so). The caller frees k by call_end.
 */
static enum ending make_call(struct ipcd_client *c, struct call *k, const char *path, const struct buffer *request,
	int64_t deadline, int how)
{
	call_init(k, request);
	if ((how & MANY) != 0)
		k->answer_max = PAGE_BYTES + FRAME_MAX + PREFIX;
	if (call_begin(c, k, path, deadline) != 0)
		return is(&c->error, "UNREACHABLE") ? BROKEN : GIVEN_UP;
	while (!k->ended) {
		int result = turn(c, k, deadline, (how & INTERRUPTIBLE) != 0);
		if (k->ended)
			break; /* with what came before the connection broke */
		if (result != 0)
			return stopped(c, result);
		if ((how & MANY) != 0 && k->answer.size > PAGE_BYTES) {
			size_t good = whole(&k->answer);
			if (good == SIZE_MAX)
				return nonsense(c);
			if (good > PAGE_BYTES) {
				k->answer.size = good;
				k->answer.data[good] = 0;
				return DONE;
			}
		}
	}
	if (k->code < 0 && k->reset == NGHTTP2_CANCEL && deadline != INT64_MAX)
		return stopped(c, -ETIMEDOUT); /* the daemon's clock was first: it ends calls in this way */
	enum ending how_ended = verdict(c, k);
	if (how_ended != DONE)
		return how_ended;
	size_t at = 0;
	struct reader one;
	if (whole(&k->answer) != k->answer.size || ((how & MANY) == 0 && (!next_message(&k->answer, &at, &one) || at != k->answer.size)))
		return nonsense(c);
	if (k->answer.size > 0)
		k->answer.data[k->answer.size] = 0;
	memset(&c->error, 0, sizeof c->error); /* of earlier tries */
	c->error.index = -1;
	return DONE;
}

/* Makes a call, again only if no daemon has seen it, or it is HARMLESS. 0, or an error. */
static int simple_call(struct ipcd_client *c, struct call *k, const char *path, const struct buffer *request, int64_t deadline, int how)
{
	call_init(k, request);
	for (int tries = 0;; tries++) {
		if (connected(c, deadline) != 0)
			return c->error.result;
		enum ending how_ended = make_call(c, k, path, request, deadline, how);
		if (how_ended == DONE)
			return 0;
		call_end(c, k);
		if (how_ended != BROKEN || (k->sent && (how & HARMLESS) == 0) || tries > 0)
			return c->error.result;
		c->leaving = true; /* of this connection no more is expected */
	}
}

/* Whether an error says that the daemon, or the way to it, is gone, so that another try may help. */
static bool gone(const struct ipcd_client *c, enum ending how_ended)
{
	return how_ended == BROKEN || is(&c->error, "UNREACHABLE") || is(&c->error, "SHUTTING_DOWN") || is(&c->error, "UNHEALTHY");
}

/* Connects again, trying until the deadline; it is the n-th time in a row. 0, or an error: -EINTR too, with INTERRUPTIBLE. */
static int reconnect(struct ipcd_client *c, int64_t deadline, int n, int how)
{
	for (;; n++) {
		int64_t ms = n < 7 ? (int64_t)RECONNECT_MS << n : RECONNECT_MAX_MS, left = left_until(deadline);
		if (left <= 0)
			return fail(&c->error, "TIMED_OUT", "the deadline passed");
		if (!sleep_ms(ms < left ? ms : left) && (how & INTERRUPTIBLE) != 0) {
			stopped(c, -EINTR);
			return -EINTR;
		}
		c->leaving = c->leaving || c->broken;
		int result = connected(c, deadline);
		if (result != -ECONNREFUSED)
			return result;
	}
}

/* Begins a public function. The deadline is the client's timeout after `more` ms; negative: never. */
static int64_t enter(struct ipcd_client *c, int64_t more)
{
	pid_t pid = getpid();
	memset(&c->error, 0, sizeof c->error);
	c->error.index = -1;
	if (c->pid != pid) { /* a child, whose parent has the connection and the producer id */
		hang_up(c);
		c->producer[0] = 0;
		c->pid = pid;
	}
	if (more < 0 || c->timeout_ms < 0)
		return INT64_MAX;
	return after(more > INT64_MAX - c->timeout_ms ? INT64_MAX : more + c->timeout_ms);
}

/* ---- Client ---- */

static int bad_option(char *text, size_t text_size, struct ipcd_client *c)
{
	int result = c->error.result;
	if (text != NULL && text_size > 0)
		copy_text(text, text_size, c->error.message, strlen(c->error.message));
	ipcd_close(c);
	return result;
}

/* Finds the socket. 0, or an error. */
static int find_socket(struct ipcd_client *c, const char *address)
{
	char own[sizeof c->path + 32];
	struct stat s;
	if (!given(address))
		address = getenv("IPCD_ADDRESS");
	if (!given(address)) {
		const char *dir = getenv("XDG_RUNTIME_DIR");
		address = system_socket;
		if (given(dir) && dir[0] == '/' && geteuid() != 0) {
			int n = snprintf(own, sizeof own, "%s/ipcd/ipcd.sock", dir);
			if (n > 0 && (size_t)n < sizeof own && stat(own, &s) == 0)
				address = own;
		}
	}
	const char *path = address;
	if (strncmp(path, "unix:", 5) == 0) {
		path += 5;
		if (strncmp(path, "//", 2) == 0)
			path += 2;
	} else if (path[0] != '/') {
		return fail(&c->error, "INVALID_ARGUMENT",
			"address \"%.200s\": it must be a socket's path, such as unix://%s; TCP is not for this client", address,
			system_socket);
	}
	if (path[0] != '/')
		return fail(&c->error, "INVALID_ARGUMENT",
			"address \"%.200s\": the socket's path must be absolute, as in unix://%s", address, system_socket);
	if (strlen(path) > sizeof c->path - 1)
		return fail(&c->error, "INVALID_ARGUMENT",
			"address \"%.200s\": a socket's path may have %zu bytes, this one has %zu: use a shorter directory", address,
			sizeof c->path - 1, strlen(path));
	memcpy(c->path, path, strlen(path) + 1);
	return 0;
}

static int take_options(struct ipcd_client *c, const struct ipcd_options *o)
{
	const char *name = given(o->user_agent) ? o->user_agent : "";
	size_t size = strlen(name);
	for (const char *at = name; *at != 0; at++)
		if (*at < ' ' || *at > '~' || size > 200)
			return fail(&c->error, "INVALID_ARGUMENT", "user_agent: it must be at most 200 bytes of printable ASCII");
	snprintf(c->user_agent, sizeof c->user_agent, "%.200s%sipcd-c", name, size > 0 ? " " : "");
	ipcd_set_timeout(c, o->timeout_ms);
	return 0;
}

int ipcd_open(struct ipcd_client **out, const char *address, const struct ipcd_options *options)
{
	struct ipcd_options defaults;
	memset(&defaults, 0, sizeof defaults);
	if (options == NULL)
		options = &defaults;
	if (out == NULL)
		return -EINVAL;
	*out = NULL;
	struct ipcd_client *c = (struct ipcd_client *)calloc(1, sizeof *c);
	if (c == NULL)
		return -ENOMEM;
	c->socket = -1;
	c->replies.stream = -1;
	c->pid = getpid();
	c->error.index = -1;
	if (find_socket(c, address) != 0 || take_options(c, options) != 0)
		return bad_option(options->text, options->text_size, c);
	*out = c;
	return 0;
}

void ipcd_close(struct ipcd_client *c)
{
	if (c == NULL)
		return;
	hang_up(c);
	free(c->out);
	free(c);
}

void ipcd_set_timeout(struct ipcd_client *c, int64_t timeout_ms) { c->timeout_ms = timeout_ms == 0 ? IPCD_TIMEOUT_DEFAULT_MS : timeout_ms; }

const struct ipcd_error *ipcd_last_error(const struct ipcd_client *c) { return &c->error; }

/* ---- Sending ---- */

/* Learns which instance of the daemon is at the other end. 0, or an error. */
static int ask_instance(struct ipcd_client *c, int64_t deadline)
{
	struct call k;
	struct buffer request;
	struct reader r;
	size_t at = 0;
	if (connected(c, deadline) != 0)
		return c->error.result;
	if (c->instance[0] != 0)
		return 0;
	begin_request(&request);
	int result = end_request(c, &request);
	if (result == 0)
		result = simple_call(c, &k, "/ipcd.v1.SystemService/GetInfo", &request, deadline, HARMLESS);
	buffer_free(&request);
	if (result != 0)
		return result;
	next_message(&k.answer, &at, &r);
	while (next(&r))
		if (r.tag == TAG(2, BYTES) && r.size < sizeof c->instance)
			copy_text(c->instance, sizeof c->instance, r.bytes, r.size);
	if (r.bad || c->instance[0] == 0) {
		nonsense(c);
		result = c->error.result;
	}
	call_end(c, &k);
	return result;
}

/* Makes sure of a producer id that nobody else has. 0, or an error. */
static int become_producer(struct ipcd_client *c)
{
	uint8_t random[16];
	if (c->producer[0] != 0)
		return 0;
	for (size_t got = 0; got < sizeof random;) {
		ssize_t n = getrandom(random + got, sizeof random - got, 0);
		if (n < 0 && errno != EINTR)
			return fail(&c->error, "INTERNAL", "getrandom: %s", strerror(errno));
		got += n > 0 ? (size_t)n : 0;
	}
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(c->producer + 2 * i, 3, "%02x", random[i]);
	c->batch = 0;
	return 0;
}

static int outcome_unknown(struct ipcd_client *c)
{
	struct ipcd_error cause = c->error;
	c->producer[0] = 0; /* its last batch may still be under way */
	return fail(&c->error, "OUTCOME_UNKNOWN",
		"it is not known whether the messages were stored (%s); look with peek, or send again with a dedup id",
		cause.message);
}

/*
 * Whether the refusal of a batch that was sent before tells nothing about that: the daemon refused it before it looked
 * at what the queue remembers.
 */
static bool leaves_open(const struct ipcd_error *e)
{
	return is(e, "OUTCOME_UNKNOWN") || is(e, "STALE_BATCH") || is(e, "QUEUE_NOT_FOUND") || is(e, "QUEUE_DELETED") ||
		is(e, "ACCESS_DENIED") || is(e, "INTERNAL");
}

/*
 * Sends a batch that is written up to the fields that each try has its own of. After 0 k has the answer, and the caller
 * frees it. Every repeat carries the same ids and the instance that saw the first, so that the daemon stores the batch
 * once or says that it cannot know. With `once` there is no repeat.
 */
static int exchange(struct ipcd_client *c, struct buffer *request, struct call *k, int64_t deadline, bool once)
{
	char instance[sizeof c->instance];
	const size_t written = request->size;
	bool unsure = false; /* the batch went out before and was not answered */
	int64_t broken_at = -1;
	memcpy(instance, c->instance, sizeof instance);
	for (int tries = 0;; tries++) {
		request->size = written;
		int64_t left = left_until(deadline);
		if (left != INT64_MAX) { /* a little less, so that the daemon can say for sure that nothing was stored */
			left -= left / 10 < 1000 ? left / 10 : 1000;
			put_span_always(request, 5, left < 1 ? 1 : left > WAIT_MAX_MS ? WAIT_MAX_MS : left);
		}
		put_text(request, 6, instance);
		if (end_request(c, request) != 0)
			return unsure ? outcome_unknown(c) : c->error.result;

		enum ending how = make_call(c, k, "/ipcd.v1.MessageService/Send", request, deadline, 0);
		if (how == DONE) {
			memcpy(c->instance, instance, sizeof instance); /* any other would have refused it */
			return 0;
		}
		bool was_sent = k->sent;
		call_end(c, k);
		if (how == ANSWERED) {
			if (is(&c->error, "UNHEALTHY")) {
				unsure = true; /* the disk failed with the outcome on its way there */
			} else if (!unsure) {
				if (!is(&c->error, "OUTCOME_UNKNOWN") || tries >= INSTANCE_TRIES)
					return c->error.result;
				c->instance[0] = 0; /* another instance than the one asked for refused it: nothing was stored */
				if (ask_instance(c, deadline) != 0)
					return c->error.result;
				memcpy(instance, c->instance, sizeof instance);
				continue;
			} else if (!gone(c, how)) {
				return leaves_open(&c->error) ? outcome_unknown(c) : c->error.result;
			}
		} else {
			unsure = unsure || was_sent;
		}
		if (!unsure) {
			if (how != BROKEN || tries > 0)
				return c->error.result;
			c->leaving = true; /* the connection had ended unnoticed */
			if (connected(c, deadline) != 0)
				return c->error.result;
			continue;
		}
		if (how == GIVEN_UP || once)
			return outcome_unknown(c);
		if (!gone(c, how)) {
			if (broken_at < 0 && (is(&c->error, "QUOTA_EXCEEDED") || is(&c->error, "UNIMPLEMENTED") || is(&c->error, "INVALID_ARGUMENT")))
				return c->error.result; /* gRPC itself refused it */
			return outcome_unknown(c);
		}
		if (broken_at < 0)
			broken_at = now_ms();
		int64_t until = broken_at + RESEND_MS;
		if (reconnect(c, until < deadline ? until : deadline, tries, 0) != 0)
			return outcome_unknown(c);
	}
}

/* Gives each message its outcome. false: the answer does not fit the batch. */
static bool take_stored(struct reader *response, size_t count, struct ipcd_sent *sent)
{
	uint64_t first = 0, stored = 0;
	for (size_t i = 0; sent != NULL && i < count; i++)
		memset(&sent[i], 0, sizeof sent[i]);
	while (next(response)) {
		if (response->tag != TAG(1, BYTES))
			continue;
		struct reader r = inner(response);
		while (next(&r)) {
			if (r.tag == TAG(1, VARINT))
				first = r.number;
			else if (r.tag == TAG(2, VARINT))
				stored = r.number;
			if (r.tag != TAG(3, BYTES))
				continue;
			struct reader d = inner(&r);
			uint64_t index = 0, sequence = 0;
			while (next(&d)) {
				if (d.tag == TAG(1, VARINT))
					index = d.number;
				else if (d.tag == TAG(2, VARINT))
					sequence = d.number;
			}
			if (d.bad || index >= count)
				return false;
			if (sent != NULL) {
				sent[index].sequence = sequence;
				sent[index].duplicate = true;
			}
		}
		if (r.bad)
			return false;
	}
	for (size_t i = 0; sent != NULL && i < count; i++)
		if (!sent[i].duplicate)
			sent[i].sequence = first++;
	return !response->bad && stored == count;
}

static size_t length(const char *text) { return text == NULL ? 0 : strlen(text); }

/* What a message is charged; anything above IPCD_BATCH_BYTES stands for too much. */
static size_t charge(const struct ipcd_message *m)
{
	size_t size = m->body_size;
	for (size_t i = 0; i < m->headers_count && size <= IPCD_BATCH_BYTES; i++) {
		if (m->headers[i].value_size > IPCD_BATCH_BYTES)
			return SIZE_MAX;
		size += length(m->headers[i].name) + m->headers[i].value_size;
	}
	if (size > IPCD_BATCH_BYTES)
		return SIZE_MAX;
	return size + length(m->dedup_id) + length(m->correlation_id) + length(m->reply_to) + length(m->content_type);
}

static int bad_message(struct ipcd_client *c, size_t index, const char *what)
{
	fail(&c->error, "INVALID_ARGUMENT", "message %zu: %s", index, what);
	c->error.index = (int64_t)index;
	return c->error.result;
}

/* Writes the messages of a batch. 0, or an error. */
static int put_batch(struct ipcd_client *c, struct buffer *b, const struct ipcd_message *messages, size_t count)
{
	size_t total = 0;
	if (count < 1 || count > IPCD_BATCH_MESSAGES || messages == NULL)
		return fail(&c->error, "INVALID_ARGUMENT", "%zu messages: a batch has 1 to %d", count, IPCD_BATCH_MESSAGES);
	for (size_t i = 0; i < count; i++) {
		const struct ipcd_message *m = &messages[i];
		if ((m->body == NULL && m->body_size > 0) || (m->headers == NULL && m->headers_count > 0))
			return bad_message(c, i, "a size is given for what is NULL");
		for (size_t h = 0; h < m->headers_count; h++)
			if (m->headers[h].value == NULL && m->headers[h].value_size > 0)
				return bad_message(c, i, "a size is given for a header's value that is NULL");
		size_t size = charge(m);
		if (size > IPCD_BATCH_BYTES || (total += size) > IPCD_BATCH_BYTES)
			return fail(&c->error, "INVALID_ARGUMENT",
				"more than %u bytes of bodies, headers and ids: a batch may not have more; send several", IPCD_BATCH_BYTES);
		put_message(b, 2, m);
		if (b->failed == EILSEQ)
			return bad_message(c, i,
				"an id, a header's name or another text is not UTF-8: bytes of other kinds belong in a body or a header's value");
	}
	return 0;
}

static int send_batch(struct ipcd_client *c, const char *queue, const struct ipcd_message *messages, size_t count,
	struct ipcd_sent *sent, int64_t deadline, bool once)
{
	struct buffer request;
	struct call k;
	struct reader r;
	size_t at = 0;
	begin_request(&request);
	put_text(&request, 1, queue);
	int result = put_batch(c, &request, messages, count);
	if (result == 0)
		result = become_producer(c);
	if (result == 0) {
		put_text(&request, 3, c->producer);
		put_number(&request, 4, ++c->batch);
		result = end_request(c, &request); /* says what is wrong with it before anything is sent */
	}
	if (result == 0)
		result = ask_instance(c, deadline);
	if (result == 0)
		result = exchange(c, &request, &k, deadline, once);
	buffer_free(&request);
	if (result != 0)
		return result;
	next_message(&k.answer, &at, &r);
	if (!take_stored(&r, count, sent)) {
		nonsense(c);
		result = c->error.result;
	}
	call_end(c, &k);
	return result;
}

int ipcd_send(struct ipcd_client *c, const char *queue, const struct ipcd_message *messages, size_t count, struct ipcd_sent *sent)
{
	int64_t deadline = enter(c, 0);
	return send_batch(c, queue, messages, count, sent, deadline, false);
}

/* ---- Receiving ---- */

/* What the ipcd_deliveries that a program gets is the beginning of. */
struct parcel {
	struct ipcd_deliveries deliveries;
	struct ipcd_header *headers;
	uint8_t *data; /* the answer, to which all strings and bodies point */
};

/*
 * Counts the elements of an answer (field 1, whose field 1 is a message), and the headers of all. false: it makes no
 * sense, or there are more than max.
 */
static bool count_elements(struct reader r, size_t max, size_t *elements, size_t *headers)
{
	while (next(&r)) {
		if (r.tag != TAG(1, BYTES))
			continue;
		if (++*elements > max)
			return false;
		struct reader element = inner(&r);
		while (next(&element)) {
			if (element.tag != TAG(1, BYTES))
				continue;
			struct reader message = inner(&element);
			while (next(&message))
				*headers += message.tag == TAG(4, BYTES);
			if (message.bad)
				return false;
		}
		if (element.bad)
			return false;
	}
	return !r.bad && *headers <= *elements * (HEADERS_MAX + 8); /* dead letters have a few more */
}

/* Reads a message; its headers go to *headers, which moves on. */
static bool take_message(struct reader r, struct ipcd_message *m, struct ipcd_header **headers)
{
	m->headers = *headers;
	m->headers_count = 0;
	while (next(&r)) {
		switch (r.tag) {
		case TAG(1, VARINT):
			m->type = (int64_t)r.number;
			break;
		case TAG(2, VARINT):
			m->priority = (uint32_t)r.number;
			break;
		case TAG(3, BYTES):
			m->body = r.bytes;
			m->body_size = r.size;
			break;
		case TAG(4, BYTES): {
			struct reader entry = inner(&r);
			struct ipcd_header *h = (*headers)++;
			memset(h, 0, sizeof *h);
			h->name = "";
			h->value = "";
			while (next(&entry)) {
				if (entry.tag == TAG(1, BYTES)) {
					h->name = get_text(&entry);
				} else if (entry.tag == TAG(2, BYTES)) {
					h->value = entry.bytes;
					h->value_size = entry.size;
				}
			}
			if (entry.bad)
				return false;
			m->headers_count++;
			break;
		}
		case TAG(7, BYTES):
			m->ttl_ms = get_span(&r);
			break;
		case TAG(8, BYTES):
			m->dedup_id = get_text(&r);
			break;
		case TAG(9, BYTES):
			m->correlation_id = get_text(&r);
			break;
		case TAG(10, BYTES):
			m->reply_to = get_text(&r);
			break;
		case TAG(11, BYTES):
			m->content_type = get_text(&r);
			break;
		default:
			break;
		}
	}
	return !r.bad;
}

static void no_message(struct ipcd_message *m)
{
	memset(m, 0, sizeof *m);
	m->body = m->dedup_id = m->correlation_id = m->reply_to = m->content_type = "";
}

static bool take_delivery(struct reader r, struct ipcd_delivery *d, struct ipcd_header **headers)
{
	memset(d, 0, sizeof *d);
	no_message(&d->message);
	d->queue = d->receipt = "";
	while (next(&r)) {
		switch (r.tag) {
		case TAG(1, BYTES):
			if (!take_message(inner(&r), &d->message, headers))
				return false;
			break;
		case TAG(2, BYTES):
			d->queue = get_text(&r);
			break;
		case TAG(3, VARINT):
			d->sequence = r.number;
			break;
		case TAG(4, BYTES):
			d->send_time_ns = get_instant(&r);
			break;
		case TAG(5, VARINT):
			d->attempts = (uint32_t)r.number;
			break;
		case TAG(6, BYTES):
			d->lease_expire_time_ns = get_instant(&r);
			break;
		case TAG(7, BYTES):
			d->receipt = get_text(&r);
			break;
		case TAG(8, VARINT):
			d->truncated_from = r.number;
			break;
		default:
			break;
		}
	}
	return !r.bad;
}

/* Makes deliveries of an answer, whose memory they take over. How many, or an error. */
static int unpack(struct ipcd_client *c, struct call *k, size_t max, struct ipcd_deliveries **out)
{
	struct reader r;
	size_t at = 0, count = 0, headers = 0;
	next_message(&k->answer, &at, &r);
	if (!count_elements(r, max, &count, &headers)) {
		nonsense(c);
		return c->error.result;
	}
	if (count == 0)
		return 0;
	struct parcel *p = (struct parcel *)calloc(1, sizeof *p);
	if (p == NULL)
		return no_memory(&c->error);
	p->deliveries.items = (struct ipcd_delivery *)calloc(count, sizeof *p->deliveries.items);
	p->headers = (struct ipcd_header *)calloc(headers + 1, sizeof *p->headers);
	struct ipcd_header *header = p->headers;
	if (p->deliveries.items == NULL || header == NULL) {
		ipcd_deliveries_free(&p->deliveries);
		return no_memory(&c->error);
	}
	p->data = k->answer.data;
	memset(&k->answer, 0, sizeof k->answer);
	r.ending = true;
	while (next(&r))
		if (r.tag == TAG(1, BYTES) && !take_delivery(inner(&r), &p->deliveries.items[p->deliveries.count++], &header)) {
			ipcd_deliveries_free(&p->deliveries);
			nonsense(c);
			return c->error.result;
		}
	*out = &p->deliveries;
	return (int)count;
}

void ipcd_deliveries_free(struct ipcd_deliveries *d)
{
	struct parcel *p = (struct parcel *)(void *)d; /* d is its first member */
	if (p == NULL)
		return;
	free(d->items);
	free(p->headers);
	free(p->data);
	free(p);
}

static int lost_at_once(struct ipcd_client *c)
{
	struct ipcd_error cause = c->error;
	return fail(&c->error, "OUTCOME_UNKNOWN", "messages that were consumed at once may be lost: %s", cause.message);
}

/* Receives, as ipcd_receive; how is INTERRUPTIBLE or 0. */
static int receive(struct ipcd_client *c, const char *queue, const struct ipcd_receive_options *o,
	struct ipcd_deliveries **out, int64_t deadline, int how)
{
	const uint32_t max = o->max_messages == 0 ? 1 : o->max_messages;
	const int64_t start = now_ms();
	struct buffer request;
	struct call k;
	int result;
	if (max > IPCD_RECEIVE_MESSAGES)
		return fail(&c->error, "INVALID_ARGUMENT", "receive %u messages: it must be 1 to %d", (unsigned)max, IPCD_RECEIVE_MESSAGES);
	if (o->wait_ms < 0 && o->wait_ms != IPCD_FOREVER)
		return fail(&c->error, "INVALID_ARGUMENT", "wait of %lld ms: it must not be negative, but for IPCD_FOREVER", (long long)o->wait_ms);
	begin_request(&request);
	put_text(&request, 1, queue);
	put_selector(&request, 2, &o->selector);
	put_number(&request, 3, max);
	put_span(&request, 5, o->lease_ms);
	put_number(&request, 6, o->consume ? 2 : 1);
	put_number(&request, 7, o->max_body_size);
	put_number(&request, 8, o->truncate);
	for (size_t i = 0; i < o->queues_count; i++)
		put_text_always(&request, 9, o->queues[i]);
	const size_t written = request.size;
	result = connected(c, deadline);
	for (int tries = 0; result == 0;) {
		int64_t wait = WAIT_MAX_MS;
		if (o->wait_ms != IPCD_FOREVER) {
			wait = o->wait_ms - (now_ms() - start);
			wait = wait < 0 ? 0 : wait > WAIT_MAX_MS ? WAIT_MAX_MS : wait;
		}
		request.size = written;
		put_span(&request, 4, wait);
		result = end_request(c, &request);
		if (result != 0)
			break;
		enum ending ended = make_call(c, &k, "/ipcd.v1.MessageService/Receive", &request, deadline, how);
		if (ended == DONE) {
			result = unpack(c, &k, max, out);
			call_end(c, &k);
			if (result != 0 || o->wait_ms != IPCD_FOREVER)
				break;
			continue;
		}
		bool was_sent = k.sent;
		call_end(c, &k);
		result = c->error.result;
		if (ended == GIVEN_UP || !gone(c, ended))
			break;
		if (was_sent && o->consume && ended != ANSWERED) {
			result = lost_at_once(c);
			break;
		}
		if (!was_sent && tries == 0) { /* the connection had ended unnoticed */
			c->leaving = true;
			result = connected(c, deadline);
			tries = 1;
			continue;
		}
		int64_t patience = INT64_MAX;
		if (o->wait_ms != IPCD_FOREVER && o->wait_ms < INT64_MAX - start)
			patience = start + (o->wait_ms > RECEIVE_PATIENCE_MS ? o->wait_ms : RECEIVE_PATIENCE_MS);
		struct ipcd_error cause = c->error;
		result = reconnect(c, patience < deadline ? patience : deadline, tries++, how);
		if (result == -ETIMEDOUT) {
			c->error = cause;
			result = cause.result;
		}
	}
	buffer_free(&request);
	return result;
}

int ipcd_receive(struct ipcd_client *c, const char *queue, const struct ipcd_receive_options *options, struct ipcd_deliveries **out)
{
	struct ipcd_receive_options defaults;
	memset(&defaults, 0, sizeof defaults);
	if (options == NULL)
		options = &defaults;
	*out = NULL;
	int64_t deadline = enter(c, options->wait_ms);
	return receive(c, queue, options, out, deadline, INTERRUPTIBLE);
}

/* ---- Settling ---- */

static void put_settlement(struct buffer *b, const struct ipcd_settlement *s)
{
	size_t begun = begin(b, 1), outcome;
	put_text_always(b, 1, s->receipt);
	outcome = begin(b, 3 + (uint32_t)s->outcome);
	switch (s->outcome) {
	case IPCD_NACK:
		if (s->delay_ms >= 0)
			put_span_always(b, 1, s->delay_ms);
		put_text(b, 2, s->reason);
		break;
	case IPCD_TOUCH:
		put_span(b, 1, s->lease_ms);
		break;
	case IPCD_BURY:
		put_text(b, 1, s->reason);
		break;
	case IPCD_ACK:
	case IPCD_RELEASE:
		break;
	}
	end(b, outcome);
	end(b, begun);
}

/* Takes in a SettleFailure; the first of all becomes the client's error. */
static bool take_failure(struct ipcd_client *c, struct reader r, struct ipcd_settlement *settlements, size_t count)
{
	uint64_t index = 0;
	struct ipcd_error e;
	memset(&e, 0, sizeof e);
	while (next(&r)) {
		if (r.tag == TAG(1, VARINT))
			index = r.number;
		if (r.tag != TAG(2, BYTES))
			continue;
		struct reader error = inner(&r);
		while (next(&error)) {
			if (error.tag == TAG(1, VARINT))
				e.code = (int)(error.number & 0xff);
			else if (error.tag == TAG(2, BYTES))
				set_reason(&e, get_text(&error), error.size);
			else if (error.tag == TAG(3, BYTES))
				copy_text(e.message, sizeof e.message, error.bytes, error.size);
			else if (error.tag == TAG(4, BYTES))
				e.retry_after_ms = get_span(&error);
		}
		if (error.bad)
			return false;
	}
	if (r.bad || index >= count)
		return false;
	if (e.reason[0] == 0)
		set_reason(&e, reason_of(e.code), strlen(reason_of(e.code)));
	e.index = (int64_t)index;
	settlements[index].result = e.result;
	if (c->error.result == 0)
		c->error = e;
	return true;
}

static bool take_touched(struct reader r, struct ipcd_settlement *settlements, size_t count)
{
	uint64_t index = 0;
	int64_t ends = 0;
	while (next(&r)) {
		if (r.tag == TAG(1, VARINT))
			index = r.number;
		else if (r.tag == TAG(2, BYTES))
			ends = get_instant(&r);
	}
	if (r.bad || index >= count)
		return false;
	settlements[index].lease_expire_time_ns = ends;
	return true;
}

/* Makes the call. 0: the daemon answered, and each settlement has its result; else an error. */
static int settle(struct ipcd_client *c, struct ipcd_settlement *settlements, size_t count, int64_t deadline)
{
	struct buffer request;
	struct call k;
	struct reader r;
	size_t at = 0;
	if (count < 1 || count > IPCD_SETTLEMENTS)
		return fail(&c->error, "INVALID_ARGUMENT", "%zu settlements: a call has 1 to %d", count, IPCD_SETTLEMENTS);
	begin_request(&request);
	for (size_t i = 0; i < count; i++) {
		if ((unsigned)settlements[i].outcome > IPCD_BURY) {
			buffer_free(&request);
			fail(&c->error, "INVALID_ARGUMENT", "settlement %zu: outcome %d: it must be one of IPCD_ACK to IPCD_BURY", i,
				(int)settlements[i].outcome);
			c->error.index = (int64_t)i;
			return c->error.result;
		}
		put_settlement(&request, &settlements[i]);
	}
	int result = end_request(c, &request);
	if (result == 0)
		result = simple_call(c, &k, "/ipcd.v1.MessageService/Settle", &request, deadline, 0);
	buffer_free(&request);
	if (result != 0)
		return result;
	for (size_t i = 0; i < count; i++)
		settlements[i].result = 0;
	next_message(&k.answer, &at, &r);
	while (next(&r))
		if ((r.tag == TAG(1, BYTES) && !take_failure(c, inner(&r), settlements, count)) ||
			(r.tag == TAG(2, BYTES) && !take_touched(inner(&r), settlements, count)))
			r.bad = true;
	if (r.bad) {
		nonsense(c);
		result = c->error.result;
	}
	call_end(c, &k);
	return result;
}

int ipcd_settle(struct ipcd_client *c, struct ipcd_settlement *settlements, size_t count)
{
	int64_t deadline = enter(c, 0);
	for (size_t i = 0; i < count; i++)
		settlements[i].lease_expire_time_ns = 0;
	int result = settle(c, settlements, count, deadline);
	for (size_t i = 0; result != 0 && i < count; i++)
		settlements[i].result = result;
	return c->error.result;
}

static int settle_one(struct ipcd_client *c, const char *receipt, enum ipcd_outcome outcome, int64_t delay_ms,
	int64_t lease_ms, const char *reason, int64_t *ends)
{
	struct ipcd_settlement s;
	memset(&s, 0, sizeof s);
	s.receipt = receipt;
	s.outcome = outcome;
	s.delay_ms = delay_ms;
	s.lease_ms = lease_ms;
	s.reason = reason;
	int result = ipcd_settle(c, &s, 1);
	if (ends != NULL)
		*ends = s.lease_expire_time_ns;
	return result;
}

int ipcd_ack(struct ipcd_client *c, const char *receipt) { return settle_one(c, receipt, IPCD_ACK, 0, 0, NULL, NULL); }

int ipcd_nack(struct ipcd_client *c, const char *receipt, int64_t delay_ms, const char *reason)
{
	return settle_one(c, receipt, IPCD_NACK, delay_ms, 0, reason, NULL);
}

int ipcd_touch(struct ipcd_client *c, const char *receipt, int64_t lease_ms, int64_t *lease_expire_time_ns)
{
	return settle_one(c, receipt, IPCD_TOUCH, 0, lease_ms, NULL, lease_expire_time_ns);
}

int ipcd_release(struct ipcd_client *c, const char *receipt) { return settle_one(c, receipt, IPCD_RELEASE, 0, 0, NULL, NULL); }

int ipcd_bury(struct ipcd_client *c, const char *receipt, const char *reason)
{
	return settle_one(c, receipt, IPCD_BURY, 0, 0, reason, NULL);
}

/* ---- Peeking ---- */

/* What the ipcd_page that a program gets is the beginning of. */
struct album {
	struct ipcd_page page;
	struct ipcd_header *headers;
	uint8_t *data;
};

static bool take_peeked(struct reader r, struct ipcd_peeked *d, struct ipcd_header **headers)
{
	memset(d, 0, sizeof *d);
	no_message(&d->message);
	d->bury_reason = "";
	while (next(&r)) {
		switch (r.tag) {
		case TAG(1, BYTES):
			if (!take_message(inner(&r), &d->message, headers))
				return false;
			break;
		case TAG(2, VARINT):
			d->sequence = r.number;
			break;
		case TAG(3, BYTES):
			d->send_time_ns = get_instant(&r);
			break;
		case TAG(4, VARINT):
			d->state = r.number < 32 ? 1u << r.number : 0;
			break;
		case TAG(5, VARINT):
			d->attempts = (uint32_t)r.number;
			break;
		case TAG(6, BYTES):
			d->due_time_ns = get_instant(&r);
			break;
		case TAG(7, BYTES):
			d->lease_expire_time_ns = get_instant(&r);
			break;
		case TAG(8, BYTES):
			d->expire_time_ns = get_instant(&r);
			break;
		case TAG(9, BYTES):
			d->bury_reason = get_text(&r);
			break;
		case TAG(10, VARINT):
			d->truncated_from = r.number;
			break;
		default:
			break;
		}
	}
	return !r.bad;
}

/* Makes a page of an answer of several messages, whose memory it takes over. How many, or an error. */
static int unpack_page(struct ipcd_client *c, struct call *k, size_t max, struct ipcd_page **out)
{
	struct reader r;
	size_t at = 0, count = 0, headers = 0;
	while (next_message(&k->answer, &at, &r))
		if (!count_elements(r, max, &count, &headers)) {
			nonsense(c);
			return c->error.result;
		}
	struct album *a = (struct album *)calloc(1, sizeof *a);
	if (a == NULL)
		return no_memory(&c->error);
	a->page.items = (struct ipcd_peeked *)calloc(count + 1, sizeof *a->page.items);
	a->headers = (struct ipcd_header *)calloc(headers + 1, sizeof *a->headers);
	struct ipcd_header *header = a->headers;
	if (a->page.items == NULL || header == NULL) {
		ipcd_page_free(&a->page);
		return no_memory(&c->error);
	}
	struct buffer answer = k->answer;
	memset(&k->answer, 0, sizeof k->answer);
	a->data = answer.data;
	at = 0;
	while (next_message(&answer, &at, &r)) {
		r.ending = true;
		a->page.cursor = NULL;
		while (next(&r)) {
			if (r.tag == TAG(2, BYTES) && r.size > 0)
				a->page.cursor = get_text(&r);
			if (r.tag == TAG(1, BYTES) && !take_peeked(inner(&r), &a->page.items[a->page.count++], &header)) {
				ipcd_page_free(&a->page);
				nonsense(c);
				return c->error.result;
			}
		}
	}
	*out = &a->page;
	return (int)count;
}

int ipcd_peek(struct ipcd_client *c, const char *queue, const struct ipcd_peek_options *options, struct ipcd_page **out)
{
	struct ipcd_peek_options defaults;
	struct buffer request;
	struct call k;
	memset(&defaults, 0, sizeof defaults);
	if (options == NULL)
		options = &defaults;
	*out = NULL;
	const uint32_t max = options->max_messages == 0 ? 100 : options->max_messages;
	int64_t deadline = enter(c, 0);
	if (max > IPCD_PEEK_MESSAGES)
		return fail(&c->error, "INVALID_ARGUMENT", "a page of %u messages: it must be 1 to %d; go on with its cursor",
			(unsigned)max, IPCD_PEEK_MESSAGES);
	begin_request(&request);
	put_text(&request, 1, queue);
	size_t filter = begin(&request, 2);
	put_selector(&request, 1, &options->selector);
	for (unsigned state = 1; state < 32; state++)
		if ((options->states >> state & 1) != 0)
			put_number(&request, 2, state);
	put_number(&request, 3, options->min_sequence);
	put_number(&request, 4, options->max_sequence);
	put_span(&request, 5, options->older_than_ms);
	end(&request, filter);
	put_number(&request, 3, max);
	put_text(&request, 4, options->cursor);
	put_number(&request, 6, options->max_body_size);
	int result = end_request(c, &request);
	if (result == 0)
		result = simple_call(c, &k, "/ipcd.v1.MessageService/Peek", &request, deadline, MANY | HARMLESS);
	buffer_free(&request);
	if (result != 0)
		return result;
	result = unpack_page(c, &k, max, out);
	call_end(c, &k);
	return result;
}

void ipcd_page_free(struct ipcd_page *page)
{
	struct album *a = (struct album *)(void *)page; /* page is its first member */
	if (a == NULL)
		return;
	free(page->items);
	free(a->headers);
	free(a->data);
	free(a);
}

/* ---- Request and reply ---- */

/* Whether the reply queue is there, as far as is known. */
static bool expecting(const struct ipcd_client *c) { return c->replies_open && !c->replies.ended && !c->broken; }

/* Reads the name of the temporary queue that was opened. false: there is none. */
static bool take_reply_queue(struct ipcd_client *c)
{
	struct reader r;
	size_t at = 0;
	c->reply_queue[0] = 0;
	next_message(&c->replies.answer, &at, &r);
	while (next(&r)) {
		if (r.tag != TAG(1, BYTES))
			continue;
		struct reader queue = inner(&r);
		while (next(&queue))
			if (queue.tag == TAG(1, BYTES) && queue.size < sizeof c->reply_queue)
				copy_text(c->reply_queue, sizeof c->reply_queue, queue.bytes, queue.size);
	}
	return !r.bad && c->reply_queue[0] != 0;
}

/* Opens the temporary queue for answers, unless it is open. 0, or an error. */
static int expect_replies(struct ipcd_client *c, int64_t deadline)
{
	struct call *k = &c->replies;
	struct buffer request;
	if (connected(c, deadline) != 0)
		return c->error.result;
	if (expecting(c))
		return 0;
	call_end(c, k);
	c->replies_open = false;
	begin_request(&request);
	int result = end_request(c, &request);
	if (result != 0) {
		buffer_free(&request);
		return result;
	}
	call_init(k, &request);
	k->answer_max = 64u << 10;
	result = call_begin(c, k, "/ipcd.v1.QueueAdminService/OpenTemporaryQueue", INT64_MAX);
	size_t good = 0;
	while (result == 0 && good == 0 && !k->ended) {
		int turned = turn(c, k, deadline, true);
		good = whole(&k->answer);
		if (turned != 0 && good == 0 && !k->ended) {
			stopped(c, turned);
			result = c->error.result;
		}
	}
	if (result == 0 && good == 0) { /* it has ended */
		if (verdict(c, k) == DONE)
			nonsense(c);
		result = c->error.result;
	} else if (result == 0 && (good == SIZE_MAX || !take_reply_queue(c))) {
		nonsense(c);
		result = c->error.result;
	}
	k->request = NULL;
	buffer_free(&request);
	buffer_free(&k->answer);
	if (result != 0)
		call_end(c, k);
	c->replies_open = result == 0;
	return result;
}

static int reply_lost(struct ipcd_client *c)
{
	struct ipcd_error cause = c->error;
	return fail(&c->error, "OUTCOME_UNKNOWN",
		"the queue for the answer ended with its connection (%s): it is not known whether the request was stored or answered",
		cause.result != 0 ? cause.message : "it broke");
}

int ipcd_request(struct ipcd_client *c, const char *queue, const struct ipcd_message *request, struct ipcd_deliveries **reply)
{
	char id[24], reply_queue[sizeof c->reply_queue];
	*reply = NULL;
	int64_t deadline = enter(c, 0);
	int result = expect_replies(c, deadline);
	if (result != 0)
		return result;
	memcpy(reply_queue, c->reply_queue, sizeof reply_queue);
	struct ipcd_message m = *request;
	m.reply_to = reply_queue;
	if (!given(m.correlation_id)) {
		snprintf(id, sizeof id, "%llu", (unsigned long long)++c->requests);
		m.correlation_id = id;
	}
	if (m.ttl_ms == 0 && deadline != INT64_MAX)
		m.ttl_ms = left_until(deadline) + 1; /* nobody waits for the answer after that */
	result = send_batch(c, queue, &m, 1, NULL, deadline, true); /* after another connection there is no queue for the answer */
	if (result != 0)
		return result;
	for (;;) {
		struct ipcd_receive_options o;
		memset(&o, 0, sizeof o);
		o.consume = true;
		o.wait_ms = deadline == INT64_MAX ? IPCD_FOREVER : left_until(deadline);
		if (!expecting(c) || strcmp(reply_queue, c->reply_queue) != 0)
			return reply_lost(c);
		result = receive(c, reply_queue, &o, reply, deadline == INT64_MAX ? deadline : deadline + 1000, INTERRUPTIBLE);
		if (result < 0 && (is(&c->error, "QUEUE_NOT_FOUND") || is(&c->error, "QUEUE_DELETED") || is(&c->error,
			"OUTCOME_UNKNOWN") || is(&c->error, "UNREACHABLE")))
			return reply_lost(c);
		if (result < 0 || (result > 0 && strcmp((*reply)->items[0].message.correlation_id, m.correlation_id) == 0))
			return result;
		if (result > 0) { /* the answer to an earlier request, which was given up */
			ipcd_deliveries_free(*reply);
			*reply = NULL;
		}
		if (left_until(deadline) == 0)
			return fail(&c->error, "TIMED_OUT", "no answer came within the timeout; one that comes later is dropped");
	}
}

int ipcd_reply(struct ipcd_client *c, const struct ipcd_delivery *request, const struct ipcd_message *reply)
{
	int64_t deadline = enter(c, 0);
	struct ipcd_message m = *reply;
	if (!given(request->message.reply_to))
		return fail(&c->error, "INVALID_ARGUMENT", "the message asks for no answer: it has no reply_to");
	m.reply_to = NULL;
	m.correlation_id = request->message.correlation_id;
	return send_batch(c, request->message.reply_to, &m, 1, NULL, deadline, false);
}

/* ---- Queues ---- */

int ipcd_create_queue(struct ipcd_client *c, const char *queue, const struct ipcd_queue_settings *settings, bool *created)
{
	struct ipcd_queue_settings defaults;
	struct buffer b;
	struct call k;
	struct reader r;
	size_t at = 0;
	bool made = false;
	memset(&defaults, 0, sizeof defaults);
	const struct ipcd_queue_settings *s = settings == NULL ? &defaults : settings;
	int64_t deadline = enter(c, 0);
	begin_request(&b);
	put_text(&b, 1, queue);
	size_t begun = begin(&b, 2);
	put_number(&b, 1, s->max_messages);
	put_number(&b, 2, s->max_bytes);
	put_number(&b, 3, s->max_message_size);
	put_span(&b, 4, s->lease_ms);
	put_number(&b, 5, s->max_attempts);
	put_text(&b, 6, s->dead_letter_queue);
	put_number(&b, 8, (uint64_t)s->overflow);
	put_number(&b, 9, (uint64_t)s->durability);
	if (s->mqueue != IPCD_MQUEUE_DEFAULT) {
		size_t kernel = begin(&b, 14);
		put_number(&b, 1, (uint64_t)s->mqueue);
		end(&b, kernel);
	}
	put_number(&b, 15, s->mode);
	end(&b, begun);
	put_number(&b, 3, s->exclusive);
	int result = end_request(c, &b);
	if (result == 0)
		result = simple_call(c, &k, "/ipcd.v1.QueueAdminService/CreateQueue", &b, deadline, 0);
	buffer_free(&b);
	if (result != 0)
		return result;
	next_message(&k.answer, &at, &r);
	while (next(&r))
		if (r.tag == TAG(2, VARINT))
			made = r.number != 0;
	if (r.bad) {
		nonsense(c);
		result = c->error.result;
	}
	call_end(c, &k);
	if (created != NULL)
		*created = made;
	return result;
}

int ipcd_delete_queue(struct ipcd_client *c, const char *queue, uint64_t *messages)
{
	struct buffer b;
	struct call k;
	struct reader r;
	size_t at = 0;
	uint64_t gone_too = 0;
	int64_t deadline = enter(c, 0);
	begin_request(&b);
	put_text(&b, 1, queue);
	int result = end_request(c, &b);
	if (result == 0)
		result = simple_call(c, &k, "/ipcd.v1.QueueAdminService/DeleteQueue", &b, deadline, 0);
	buffer_free(&b);
	if (result != 0)
		return result;
	next_message(&k.answer, &at, &r);
	while (next(&r))
		if (r.tag == TAG(1, VARINT))
			gone_too = r.number;
	if (r.bad) {
		nonsense(c);
		result = c->error.result;
	}
	call_end(c, &k);
	if (messages != NULL)
		*messages = gone_too;
	return result;
}
