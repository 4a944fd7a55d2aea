/* layout puts a number at each place of a lane (descriptor 3) and of a consumer's pages (4), and prints the constants. */
#include "ipcd_ring.h"

static void put64(uint8_t *memory, size_t at, uint64_t v) { memcpy(memory + at, &v, sizeof v); }
static void put32(uint8_t *memory, size_t at, uint32_t v) { memcpy(memory + at, &v, sizeof v); }

static void print(const char *name, uint64_t v) { printf("%s %llu\n", name, (unsigned long long)v); }

static uint64_t magic(const char *text)
{
	uint64_t v;
	memcpy(&v, text, sizeof v);
	return v;
}

int main(void)
{
	uint8_t *lane = ipcd_i_map(3, IPCD_RING_LANE_DATA, true), *consumer = ipcd_i_map(4, IPCD_RING_CONSUMER_SIZE, true);
	if (lane == NULL || consumer == NULL)
		return 1;
#define PRINT(name) print(#name, IPCD_RING_##name)
	PRINT(VERSION);
	PRINT(MAX_LANES);
	PRINT(MAX_CONSUMERS);
	PRINT(CAPACITY_MIN);
	PRINT(CAPACITY_MAX);
	PRINT(LANE_DATA);
	PRINT(FRAME_HEADER);
	PRINT(FRAME_ALIGN);
	PRINT(CONSUMER_SIZE);
	PRINT(MEMBERS_SIZE);
	PRINT(LANE_HEADER);
	PRINT(CONSUMER_HEADER);
	print("LANE_MAGIC", magic(IPCD_RING_LANE_MAGIC));
	print("CONSUMER_MAGIC", magic(IPCD_RING_CONSUMER_MAGIC));

	put64(lane, IPCD_RING_LANE_PUBLISHED, 1001);
	put64(lane, IPCD_RING_LANE_SEQUENCE, 1002);
	put64(lane, IPCD_RING_LANE_OLDEST, 1003);
	put64(lane, IPCD_RING_LANE_SEEN, 1004);
	put32(lane, IPCD_RING_LANE_BLOCKED, 1);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_WAKES, 1005);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_ELIDED, 1006);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_BLOCKS, 1007);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_BLOCKED_NS, 1008);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_EVICTIONS, 1009);
	put64(lane, IPCD_RING_LANE_COUNTERS + 8 * IPCD_I_WRITER_BACKSTOPS, 1010);
	put64(lane, IPCD_RING_LANE_EVICTED + 8 * 21, 1011);

	put32(consumer, IPCD_RING_CONSUMER_PARKED(21), 1);
	put64(consumer, IPCD_RING_CONSUMER_COUNTERS + 8 * IPCD_I_RECEIVED, 2001);
	put64(consumer, IPCD_RING_CONSUMER_COUNTERS + 8 * IPCD_I_LOST, 2002);
	put64(consumer, IPCD_RING_CONSUMER_COUNTERS + 8 * IPCD_I_PARKS, 2003);
	put64(consumer, IPCD_RING_CONSUMER_COUNTERS + 8 * IPCD_I_READER_BACKSTOPS, 2004);
	put64(consumer, IPCD_RING_CONSUMER_COUNTERS + 8 * IPCD_I_CORRUPT, 2005);
	put64(consumer, IPCD_RING_CONSUMER_LINES + 128 * 3, 2006);
	put64(consumer, IPCD_RING_CONSUMER_LINES + 128 * 3 + 8, 2007);
	put64(consumer, IPCD_RING_CONSUMER_LINES + 128 * 3 + 16, 2008);
	put64(consumer, IPCD_RING_CONSUMER_LINES + 128 * 3 + 24, 2009);
	return 0;
}
