/*
 * member is a producer or a consumer that a test leads by the hand: it joins with descriptors that it inherited, or over
 * attach.sock, and then does what the lines of its standard input say, answering each with lines of output.
 *
 *     member producer|consumer KEY=NUMBER... [peer=KIND:ID:EPOCH:SLOT:FLAGS:SIZE:CAPACITY:MAXFRAME:FD]... [attach=PATH name=NAME]
 */
#include "ipcd_ring.h"

#include <signal.h>

#define PEERS 64

static struct ipcd_ring_producer *producer;
static struct ipcd_ring_consumer *consumer;

/* The payload of a message follows from its type: every reader can check it. */
static uint8_t pattern(int64_t type, size_t i) { return (uint8_t)(type * 31 + (int64_t)i * 7 + (int64_t)(i >> 8)); }

static void fill(uint8_t *to, int64_t type, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = pattern(type, i);
}

static int matches(const struct ipcd_ring_message *m)
{
	const uint8_t *bytes = (const uint8_t *)m->payload;
	for (size_t i = 0; i < m->size; i++)
		if (bytes[i] != pattern(m->type, i))
			return 0;
	return 1;
}

static void answer(const char *word, int64_t result)
{
	printf("%s %lld\n", word, (long long)result);
	fflush(stdout);
}

/* The tracer takes over, and gives back, where this is called: with as few instructions as can be. */
static void mark(void) { syscall(SYS_kill, getpid(), SIGUSR1); }

static int64_t publish(const char *how, int64_t type, size_t size, int64_t timeout)
{
	static uint8_t payload[1 << 20];
	int64_t result;
	fill(payload, type, size);
	if (strcmp(how, "claim") == 0) {
		void *to = NULL;
		result = ipcd_ring_claim(producer, size, &to, timeout);
		if (result == 0) {
			memcpy(to, payload, size);
			result = ipcd_ring_commit(producer, type, size);
		}
	} else if (strcmp(how, "abort") == 0) {
		void *to = NULL;
		result = ipcd_ring_claim(producer, size, &to, timeout);
		if (result == 0) {
			memset(to, 0xee, size);
			if (ipcd_ring_publish(producer, type, payload, size) != -EBUSY)
				return -EPROTO;
			ipcd_ring_abort(producer);
		}
	} else if (strcmp(how, "gather") == 0) {
		struct iovec parts[3];
		parts[0].iov_base = payload;
		parts[0].iov_len = size / 3;
		parts[1].iov_base = NULL;
		parts[1].iov_len = 0;
		parts[2].iov_base = payload + size / 3;
		parts[2].iov_len = size - size / 3;
		result = ipcd_ring_publishv(producer, type, parts, 3, timeout);
	} else if (strcmp(how, "stepped") == 0) {
		mark();
		result = ipcd_ring_publish_wait(producer, type, payload, size, timeout);
		mark();
	} else {
		result = ipcd_ring_publish_wait(producer, type, payload, size, timeout);
	}
	return result;
}

/* As one batch: messages of one size, with rising types. */
static int64_t publish_batch(int64_t type, size_t size, size_t count, int64_t timeout)
{
	struct ipcd_ring_item items[1000];
	if (count > 1000 || size > 65536)
		return -EINVAL;
	uint8_t *payloads = (uint8_t *)malloc(count * size + 1);
	if (payloads == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		fill(payloads + i * size, type + (int64_t)i, size);
		items[i].type = type + (int64_t)i;
		items[i].payload = payloads + i * size;
		items[i].size = size;
	}
	int64_t result = ipcd_ring_publish_batch(producer, items, count, timeout);
	free(payloads);
	return result;
}

static int read_one(const char *how, int64_t timeout)
{
	static uint8_t buffer[1 << 20];
	struct ipcd_ring_message m;
	int result;
	memset(&m, 0, sizeof m);
	if (strcmp(how, "into") == 0) {
		result = ipcd_ring_next_into(consumer, &m, buffer, sizeof buffer, timeout);
	} else if (strcmp(how, "small") == 0) {
		result = ipcd_ring_next_into(consumer, &m, buffer, 1, timeout);
		if (result == -EMSGSIZE)
			result = ipcd_ring_next_into(consumer, &m, buffer, m.size, timeout);
	} else if (strcmp(how, "view") == 0 || strcmp(how, "hold") == 0) { /* hold: the view stays until the next read */
		result = ipcd_ring_view(consumer, &m, timeout);
	} else if (strcmp(how, "stepped") == 0) {
		mark();
		result = ipcd_ring_next(consumer, &m, timeout);
		mark();
	} else {
		result = ipcd_ring_next(consumer, &m, timeout);
	}
	if (result == 0) {
		int good = matches(&m);
		if (strcmp(how, "view") == 0 && !ipcd_ring_view_valid(consumer))
			good = 2;
		printf("message %lld %llu %llu %zu %d %llu %lld\n", (long long)m.type, (unsigned long long)m.sequence, (unsigned long long)m.lost,
			m.size, good, (unsigned long long)m.lane, (long long)m.time_ns);
	}
	return result;
}

/*
 * Reads up to the message with the sequence `last` without a word. Each message must be whole, and follow the one before it but for what it
 * says was lost. How many came, or what went wrong.
 */
static int64_t drain(const char *how, uint64_t last, int64_t timeout)
{
	struct ipcd_ring_message m;
	uint64_t before = 0;
	int64_t n = 0;
	do {
		int view = strcmp(how, "view") == 0;
		int result = view ? ipcd_ring_view(consumer, &m, timeout) : ipcd_ring_next(consumer, &m, timeout);
		if (result != 0)
			return result;
		if (!matches(&m) && (!view || ipcd_ring_view_valid(consumer)))
			return -EILSEQ;
		if (before != 0 && m.sequence != before + m.lost + 1)
			return -ERANGE;
		before = m.sequence;
		n++;
	} while (before < last);
	return n;
}

static void stats(void)
{
	if (producer != NULL) {
		struct ipcd_ring_producer_stats s;
		ipcd_ring_producer_get_stats(producer, &s);
		printf("stats sequence=%llu published=%llu oldest=%llu wakes=%llu elided=%llu blocks=%llu evictions=%llu backstops=%llu consumers=%u\n",
			(unsigned long long)s.sequence, (unsigned long long)s.published, (unsigned long long)s.oldest, (unsigned long long)s.wakes, (unsigned long long)s.elided,
			(unsigned long long)s.blocks, (unsigned long long)s.evictions, (unsigned long long)s.backstops, s.consumers);
	} else {
		struct ipcd_ring_consumer_stats s;
		ipcd_ring_consumer_get_stats(consumer, &s);
		printf("stats received=%llu lost=%llu lag=%llu lagbytes=%llu parks=%llu backstops=%llu corrupt=%llu evicted=%llu lanes=%u\n",
			(unsigned long long)s.received, (unsigned long long)s.lost, (unsigned long long)s.lag_messages, (unsigned long long)s.lag_bytes, (unsigned long long)s.parks,
			(unsigned long long)s.backstops, (unsigned long long)s.corrupt, (unsigned long long)s.evicted, s.lanes);
	}
	fflush(stdout);
}

static void obey(const char *line)
{
	char how[32];
	long long type, size, count, timeout;
	if (sscanf(line, "batch %lld %lld %lld %lld", &type, &size, &count, &timeout) == 4) {
		answer("batch", publish_batch(type, (size_t)size, (size_t)count, timeout));
	} else if (sscanf(line, "publish %31s %lld %lld %lld %lld", how, &type, &size, &count, &timeout) == 5) {
		/* Types rise by one; a size below 0 stands for sizes 0, 1, 2 and so on. */
		int64_t result = 0;
		for (long long i = 0; result == 0 && i < count; i++)
			result = publish(how, type + i, (size_t)(size < 0 ? i : size), timeout);
		answer("published", result);
	} else if (sscanf(line, "read %31s %lld %lld", how, &count, &timeout) == 3) {
		int result = 0;
		for (long long i = 0; result == 0 && i < count; i++)
			result = read_one(how, timeout);
		answer("read", result);
	} else if (sscanf(line, "drain %31s %lld %lld", how, &count, &timeout) == 3) {
		answer("drained", drain(how, (uint64_t)count, timeout));
	} else if (strncmp(line, "valid", 5) == 0) {
		answer("valid", ipcd_ring_view_valid(consumer) ? 1 : 0);
	} else if (strncmp(line, "stats", 5) == 0) {
		stats();
	} else if (strncmp(line, "service", 7) == 0) {
		answer("service", producer != NULL ? ipcd_ring_producer_service(producer) : ipcd_ring_consumer_service(consumer));
	} else if (strncmp(line, "text", 4) == 0) {
		printf("text %s\n", producer != NULL ? ipcd_ring_producer_text(producer) : ipcd_ring_consumer_text(consumer));
		fflush(stdout);
	} else {
		answer("unknown", -EINVAL);
	}
}

int main(int argc, char **argv)
{
	struct ipcd_ring_joined joined;
	struct ipcd_ring_peer peers[PEERS];
	struct ipcd_ring_options options;
	size_t count = 0;
	int memory = -1, page = -1, result;
	uint64_t known = 0;
	const char *name = NULL;
	int64_t types[8];
	char text[256] = "";
	memset(&joined, 0, sizeof joined);
	ipcd_ring_options_init(&options);
	options.text = text;
	options.text_size = sizeof text;
	for (int i = 2; i < argc; i++) {
		const char *value = strchr(argv[i], '=');
		if (value == NULL)
			return 2;
		unsigned long long n = strtoull(++value, NULL, 0);
#define IS(key) (strncmp(argv[i], key "=", sizeof key) == 0)
		if (IS("memory")) memory = (int)n;
		else if (IS("page")) page = (int)n;
		else if (IS("id")) joined.id = n;
		else if (IS("epoch")) joined.epoch = n;
		else if (IS("slot")) joined.slot = (uint32_t)n;
		else if (IS("flags")) joined.flags = (uint32_t)n;
		else if (IS("capacity")) joined.capacity = n;
		else if (IS("maxframe")) joined.max_frame = (uint32_t)n;
		else if (IS("stall")) joined.stall_ns = n;
		else if (IS("known")) known = n;
		else if (IS("start")) options.start = (enum ipcd_ring_start)n;
		else if (IS("sequence")) options.sequence = n;
		else if (IS("lossless")) options.lossless = n != 0;
		else if (IS("attach")) options.socket = value;
		else if (IS("name")) name = value;
		else if (IS("type") && options.types_count < 8) {
			types[options.types_count++] = (int64_t)n;
			options.types = types;
		} else if (IS("peer") && count < PEERS) {
			unsigned long long v[9];
			if (sscanf(value, "%llu:%llu:%llu:%llu:%llu:%llu:%llu:%llu:%llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8]) != 9)
				return 2;
			struct ipcd_ring_peer *p = &peers[count++];
			p->kind = (uint32_t)v[0];
			p->id = v[1];
			p->epoch = v[2];
			p->slot = (uint32_t)v[3];
			p->flags = (uint32_t)v[4];
			p->size = v[5];
			p->capacity = v[6];
			p->max_frame = (uint32_t)v[7];
			p->fd = (int)v[8];
		} else {
			return 2;
		}
	}
	if (strcmp(argv[1], "producer") == 0)
		result = name != NULL ? ipcd_ring_producer_open(&producer, name, &options) : ipcd_ring_producer_from(&producer, &joined, memory, page, &options);
	else
		result = name != NULL ? ipcd_ring_consumer_open(&consumer, name, &options) : ipcd_ring_consumer_from(&consumer, &joined, memory, page, &options);
	if (result == 0 && name == NULL)
		result = producer != NULL ? ipcd_ring_producer_offer(producer, known, false, peers, count) : ipcd_ring_consumer_offer(consumer, known, false, peers, count);
	answer("joined", result);
	if (result != 0) {
		printf("text %s\n", text);
		return 1;
	}
	char line[256];
	while (fgets(line, sizeof line, stdin) != NULL)
		obey(line);
	ipcd_ring_producer_close(producer);
	ipcd_ring_consumer_close(consumer);
	return 0;
}
