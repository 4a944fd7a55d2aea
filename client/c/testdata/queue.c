/*
 * queue is a program that a test leads by the hand: it does with a client what the lines of its standard input say, and answers
 * each with lines of output, of which the last is "result N code=... reason=... index=... retry=... message...".
 *
 *     COMMAND [NAME...] [KEY=VALUE...]
 */
#include "ipcd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 70000
#define HELD 20000

static struct ipcd_client *client;
static char *words[WORDS];
static size_t count;
static struct ipcd_deliveries *held[HELD]; /* what was received, until "free" */
static size_t holding;

/* The value of a key in the present line, or NULL. */
static const char *value(const char *key)
{
	for (size_t i = 1; i < count; i++)
		if (strncmp(words[i], key, strlen(key)) == 0 && words[i][strlen(key)] == '=')
			return words[i] + strlen(key) + 1;
	return NULL;
}

static long long number(const char *key, long long otherwise)
{
	const char *text = value(key);
	return text == NULL ? otherwise : strtoll(text, NULL, 10);
}

/* The answer to what is no call of the client. */
static void done(int result)
{
	printf("result %d errno=%d code=0 reason= index=-1 retry=0 \n", result, result);
	fflush(stdout);
}

/* Copies text, which may come from a server that lies, as one word, or as one line. */
static const char *tame(char *to, size_t room, const char *from, char lowest)
{
	size_t n = 0;
	for (; from[n] != 0 && n < room - 1; n++)
		to[n] = from[n] < lowest || from[n] > '~' ? '?' : from[n];
	to[n] = 0;
	return to;
}

static void answer(long long result)
{
	static const struct ipcd_error none = {.index = -1};
	const struct ipcd_error *e = client == NULL ? &none : ipcd_last_error(client);
	char reason[sizeof e->reason], message[sizeof e->message];
	printf("result %lld errno=%d code=%d reason=%s index=%lld retry=%lld %s\n", result, client == NULL ? (int)result : e->result, e->code,
		tame(reason, sizeof reason, e->reason, '!'), (long long)e->index, (long long)e->retry_after_ms, tame(message, sizeof message, e->message, ' '));
	fflush(stdout);
}

/* The bytes of a body follow from its size. */
static uint8_t *body_of(size_t size)
{
	uint8_t *body = malloc(size + 1);
	for (size_t i = 0; i < size; i++)
		body[i] = (uint8_t)(i * 7 + (i >> 8) + size);
	return body;
}

static bool matches(const uint8_t *body, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (body[i] != (uint8_t)(i * 7 + (i >> 8) + size))
			return false;
	return true;
}

static void show_message(const struct ipcd_message *m)
{
	printf(" type=%lld priority=%u size=%zu patterned=%d", (long long)m->type, (unsigned)m->priority, m->body_size, (int)matches(m->body, m->body_size));
	printf(" ttl=%lld dedup=%s correlation=%s reply_to=%s content=%s headers=", (long long)m->ttl_ms, m->dedup_id, m->correlation_id, m->reply_to, m->content_type);
	for (size_t i = 0; i < m->headers_count; i++)
		printf("%s:%.*s;", m->headers[i].name, (int)m->headers[i].value_size, (const char *)m->headers[i].value);
	if (!matches(m->body, m->body_size))
		printf(" body=%.*s", (int)m->body_size, (const char *)m->body);
}

static void show(const struct ipcd_deliveries *d)
{
	for (size_t i = 0; d != NULL && i < d->count; i++) {
		const struct ipcd_delivery *m = &d->items[i];
		printf("message queue=%s sequence=%llu sent=%lld attempts=%u lease=%lld receipt=%s cut=%llu", m->queue, (unsigned long long)m->sequence, (long long)m->send_time_ns, (unsigned)m->attempts,
			(long long)m->lease_expire_time_ns, m->receipt, (unsigned long long)m->truncated_from);
		show_message(&m->message);
		printf("\n");
	}
}

static struct ipcd_selector selector(int64_t *types)
{
	struct ipcd_selector s = {.kind = IPCD_ANY, .type = number("type", 0), .types = types};
	const char *kind = value("select");
	if (kind == NULL)
		return s;
	s.kind = strcmp(kind, "type") == 0 ? IPCD_TYPE : strcmp(kind, "upto") == 0 ? IPCD_UPTO : strcmp(kind, "not") == 0 ? IPCD_NOT : IPCD_TYPES;
	for (const char *at = value("types"); at != NULL && *at != 0; at += strcspn(at, ","), at += *at == ',')
		types[s.types_count++] = strtoll(at, NULL, 10);
	return s;
}

/* The message that the line describes; its body is to be freed. */
static struct ipcd_message message(struct ipcd_header *headers)
{
	struct ipcd_message m = {
		.type = number("type", 0), .priority = (uint32_t)number("priority", 0), .delay_ms = number("delay", 0), .ttl_ms = number("ttl", 0), .dedup_id = value("dedup"),
		.correlation_id = value("correlation"), .reply_to = value("reply_to"), .content_type = value("content"), .headers = headers,
	};
	const char *text = value("body");
	m.body_size = text != NULL ? strlen(text) : (size_t)number("size", 0);
	m.body = text != NULL ? (const void *)strdup(text) : body_of(m.body_size);
	for (size_t i = 1; i < count; i++)
		if (strncmp(words[i], "header=", 7) == 0) {
			char *colon = strchr(words[i] + 7, ':');
			*colon = 0;
			headers[m.headers_count].name = words[i] + 7;
			headers[m.headers_count].value = colon + 1;
			headers[m.headers_count++].value_size = strlen(colon + 1);
			/* The line is read once. */
		}
	if (value("broken") != NULL) /* a size without a body */
		free((void *)(uintptr_t)m.body), m.body = NULL;
	return m;
}

static void do_send(void)
{
	static struct ipcd_message batch[20000];
	static struct ipcd_sent sent[20000];
	struct ipcd_header headers[128];
	size_t n = (size_t)number("count", 1);
	struct ipcd_message m = message(headers);
	for (size_t i = 0; i < n; i++) {
		batch[i] = m;
		if (value("rising") != NULL)
			batch[i].type += (int64_t)i;
	}
	int result = ipcd_send(client, words[1], n > 0 ? batch : NULL, n, sent);
	for (size_t i = 0; result == 0 && i < n && i < 8; i++)
		printf("sent sequence=%llu duplicate=%d\n", (unsigned long long)sent[i].sequence, (int)sent[i].duplicate);
	answer(result);
	free((void *)(uintptr_t)m.body);
}

static void do_receive(void)
{
	int64_t types[2000];
	const char *queues[300], *more = value("queues");
	struct ipcd_receive_options o = {
		.max_messages = (uint32_t)number("n", 0), .selector = selector(types), .wait_ms = number("wait", 0), .lease_ms = number("lease", 0), .consume = value("consume") != NULL,
		.max_body_size = (uint64_t)number("room", 0), .truncate = value("truncate") != NULL, .queues = queues,
	};
	for (char *at = more == NULL ? NULL : strtok((char *)(uintptr_t)more, ","); at != NULL; at = strtok(NULL, ","))
		queues[o.queues_count++] = at;
	struct ipcd_deliveries *got = (void *)-1;
	int result = ipcd_receive(client, more == NULL ? words[1] : NULL, &o, &got);
	if (result <= 0 && got != NULL)
		abort();
	show(got);
	if (got != NULL)
		held[holding++] = got;
	answer(result);
}

static void do_peek(void)
{
	int64_t types[2000];
	struct ipcd_peek_options o = {
		.max_messages = (uint32_t)number("n", 0), .selector = selector(types), .states = (unsigned)number("states", 0), .min_sequence = (uint64_t)number("min", 0), .max_sequence = (uint64_t)number("max", 0),
		.older_than_ms = number("older", 0), .max_body_size = (uint64_t)number("room", 0), .cursor = value("cursor"),
	};
	struct ipcd_page *page = NULL;
	int result = ipcd_peek(client, words[1], &o, &page);
	for (size_t i = 0; page != NULL && i < page->count; i++) {
		const struct ipcd_peeked *m = &page->items[i];
		printf("peeked sequence=%llu sent=%lld state=%u attempts=%u due=%lld lease=%lld expires=%lld bury=%s cut=%llu", (unsigned long long)m->sequence, (long long)m->send_time_ns, m->state, (unsigned)m->attempts,
			(long long)m->due_time_ns, (long long)m->lease_expire_time_ns, (long long)m->expire_time_ns, m->bury_reason, (unsigned long long)m->truncated_from);
		show_message(&m->message);
		printf("\n");
	}
	if (page != NULL)
		printf("cursor %s\n", page->cursor == NULL ? "" : page->cursor);
	ipcd_page_free(page);
	answer(result);
}

static void do_settle(void)
{
	static struct ipcd_settlement s[WORDS];
	size_t n = 0;
	memset(s, 0, sizeof s);
	for (size_t i = 1; i < count; i++) { /* OUTCOME:RECEIPT */
		char *colon = strchr(words[i], ':');
		if (colon == NULL)
			continue;
		s[n].outcome = (enum ipcd_outcome)strtol(words[i], NULL, 10);
		s[n].receipt = colon + 1;
		s[n].delay_ms = number("delay", 0);
		s[n].lease_ms = number("lease", 0);
		s[n++].reason = value("reason");
	}
	int result = ipcd_settle(client, s, n);
	for (size_t i = 0; i < n; i++)
		printf("settled %d lease=%lld\n", s[i].result, (long long)s[i].lease_expire_time_ns);
	answer(result);
}

static void do_request(void)
{
	struct ipcd_header headers[128];
	struct ipcd_message m = message(headers);
	struct ipcd_deliveries *reply = (void *)-1;
	int result = ipcd_request(client, words[1], &m, &reply);
	if (result <= 0 && reply != NULL)
		abort();
	show(reply);
	ipcd_deliveries_free(reply);
	answer(result);
	free((void *)(uintptr_t)m.body);
}

/* Answers what was received last. */
static void do_reply(void)
{
	struct ipcd_header headers[128];
	struct ipcd_message m = message(headers);
	answer(ipcd_reply(client, &held[holding - 1]->items[0], &m));
	free((void *)(uintptr_t)m.body);
}

static void do_create(void)
{
	struct ipcd_queue_settings s = {
		.max_messages = (uint64_t)number("messages", 0), .max_bytes = (uint64_t)number("bytes", 0), .max_message_size = (uint64_t)number("message", 0), .lease_ms = number("lease", 0),
		.max_attempts = (uint32_t)number("attempts", 0), .dead_letter_queue = value("dead"), .overflow = (enum ipcd_overflow)number("overflow", 0), .durability = (enum ipcd_durability)number("durability", 0),
		.mqueue = (enum ipcd_mqueue)number("mqueue", IPCD_MQUEUE_NONE), .mode = (uint32_t)number("mode", 0), .exclusive = value("exclusive") != NULL,
	};
	bool created = false;
	int result = ipcd_create_queue(client, words[1], &s, &created);
	printf("created %d\n", (int)created);
	answer(result);
}

static void do_delete(void)
{
	uint64_t messages = 0;
	int result = ipcd_delete_queue(client, words[1], &messages);
	printf("deleted %llu\n", (unsigned long long)messages);
	answer(result);
}

static void do_open(void)
{
	char text[256] = "";
	struct ipcd_options o = {.timeout_ms = number("timeout", 0), .user_agent = value("agent"), .text = text, .text_size = sizeof text};
	ipcd_close(client);
	int result = ipcd_open(&client, count > 1 && strchr(words[1], '=') == NULL ? words[1] : NULL, &o);
	if ((result == 0) != (client != NULL))
		abort();
	if (result != 0)
		printf("refused %s\n", text);
	answer(result);
}

/* A child sends with the client of its parent, and closes it. */
static void do_fork(void)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct ipcd_message m = {.type = 2};
		int result = value("idle") != NULL ? 0 : ipcd_send(client, words[1], &m, 1, NULL);
		ipcd_close(client);
		for (size_t i = 0; i < holding; i++)
			ipcd_deliveries_free(held[i]);
		exit(result == 0 ? 0 : 1);
	}
	int status = 0;
	waitpid(child, &status, 0);
	done(status == 0 ? 0 : -1);
}

static void on_alarm(int signal) { (void)signal; }

/* SIGALRM comes all the time from now on, or, with 0, not any more. */
static void do_alarm(void)
{
	struct sigaction a;
	struct itimerval every;
	memset(&a, 0, sizeof a);
	memset(&every, 0, sizeof every);
	a.sa_handler = on_alarm;
	a.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &a, NULL);
	every.it_value.tv_usec = every.it_interval.tv_usec = number("every", 0);
	setitimer(ITIMER_REAL, &every, NULL);
	done(0);
}

/* Sends the same message over and over, one by one or in batches, for the measurement in README.md. */
static void do_repeat(void)
{
	static struct ipcd_message batch[20000];
	struct ipcd_header headers[128];
	struct ipcd_message m = message(headers);
	size_t n = (size_t)number("count", 1);
	int result = 0;
	for (size_t i = 0; i < n; i++)
		batch[i] = m;
	for (long long i = number("times", 1); i > 0 && result == 0; i--)
		result = ipcd_send(client, words[1], batch, n, NULL);
	free((void *)(uintptr_t)m.body);
	answer(result);
}

static const struct {
	const char *name;
	void (*run)(void);
} commands[] = {
	{"open", do_open}, {"send", do_send}, {"receive", do_receive}, {"peek", do_peek}, {"settle", do_settle}, {"request", do_request}, {"reply", do_reply},
	{"create", do_create}, {"delete", do_delete}, {"fork", do_fork}, {"alarm", do_alarm}, {"repeat", do_repeat},
};

int main(void)
{
	char *line = NULL;
	size_t room = 0;
	while (getline(&line, &room, stdin) > 0) {
		count = 0;
		for (char *at = strtok(line, " \n"); at != NULL && count < WORDS; at = strtok(NULL, " \n"))
			words[count++] = at;
		if (count == 0)
			continue;
		if (strcmp(words[0], "timeout") == 0) {
			ipcd_set_timeout(client, strtoll(words[1], NULL, 10));
			continue;
		}
		bool known = false;
		for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
			if (strcmp(words[0], commands[i].name) == 0) {
				commands[i].run();
				known = true;
			}
		if (!known)
			abort();
	}
	free(line);
	for (size_t i = 0; i < holding; i++)
		ipcd_deliveries_free(held[i]);
	ipcd_close(client);
	return 0;
}
