//go:build ignore

/*
 * example_sub prints the messages of a ring, each as a line: its type, a tab, and the payload.
 *
 *     cc -O2 -o example_sub example_sub.c
 *
 * (The first line keeps Go's tools away from this file.)
 */
#include "ipcd_ring.h"

#include <signal.h>

static const char usage[] =
	"usage: example_sub [-s SOCKET] [-n COUNT] [-t TYPE]... [-o] [-l] RING\n"
	"  Prints messages until COUNT were printed, or until SIGINT. RING is a name such as /ticks.\n"
	"  -s  the daemon's attach.sock, instead of $IPCD_ATTACH\n"
	"  -t  only messages of this type; up to 16 times\n"
	"  -o  begin with the oldest message that the ring still holds, not with the next one\n"
	"  -l  lossless: producers of a lossless ring wait for this program\n";

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

int main(int argc, char **argv)
{
	struct ipcd_ring_options options;
	int64_t types[16];
	char text[256];
	long long left = -1;
	int option, status = 0;

	ipcd_ring_options_init(&options);
	options.text = text;
	options.text_size = sizeof text;
	while ((option = getopt(argc, argv, "s:n:t:ol")) != -1) {
		switch (option) {
		case 's':
			options.socket = optarg;
			break;
		case 'n':
			left = strtoll(optarg, NULL, 10);
			break;
		case 't':
			if (options.types_count < sizeof types / sizeof types[0])
				types[options.types_count++] = strtoll(optarg, NULL, 10);
			options.types = types;
			break;
		case 'o':
			options.start = IPCD_RING_OLDEST;
			break;
		case 'l':
			options.lossless = true;
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		return 2;
	}

	/* Without SA_RESTART a signal ends the wait: ipcd_ring_next returns -EINTR. */
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = stop;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);

	struct ipcd_ring_consumer *consumer;
	if (ipcd_ring_consumer_open(&consumer, argv[optind], &options) != 0) {
		fprintf(stderr, "example_sub: %s: %s\n", argv[optind], text);
		return 1;
	}
	while (!stopped && left != 0) {
		struct ipcd_ring_message message;
		int result = ipcd_ring_next(consumer, &message, 1000000000);
		if (result == -EINTR || result == -ETIMEDOUT) {
			fflush(stdout);
			continue;
		}
		if (result != 0) {
			const char *why = ipcd_ring_consumer_text(consumer);
			fprintf(stderr, "example_sub: %s\n", *why != 0 ? why : strerror(-result));
			if (result == -EBADMSG || result == -EPIPE) /* about one lane: there is more to read */
				continue;
			status = 1;
			break;
		}
		if (message.lost > 0)
			fprintf(stderr, "example_sub: %llu messages of lane %llu were lost\n", (unsigned long long)message.lost, (unsigned long long)message.lane);
		printf("%lld\t%.*s\n", (long long)message.type, (int)message.size, (const char *)message.payload);
		if (left > 0)
			left--;
	}
	struct ipcd_ring_consumer_stats stats;
	ipcd_ring_consumer_get_stats(consumer, &stats);
	fprintf(stderr, "example_sub: %llu messages, %llu lost\n", (unsigned long long)stats.received, (unsigned long long)stats.lost);
	ipcd_ring_consumer_close(consumer);
	return fflush(stdout) != 0 ? 1 : status;
}
