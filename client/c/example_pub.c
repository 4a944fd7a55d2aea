//go:build ignore

/*
 * example_pub publishes each line of its input into a ring.
 *
 *     cc -O2 -o example_pub example_pub.c
 *
 * (The first line keeps Go's tools away from this file.)
 */
#include "ipcd_ring.h"

static const char usage[] =
	"usage: example_pub [-s SOCKET] [-t TYPE] [-w] RING < LINES\n"
	"  Publishes each line as a message of type TYPE (1). RING is a name such as /ticks.\n"
	"  -s  the daemon's attach.sock, instead of $IPCD_ATTACH\n"
	"  -w  do not wait for lossless consumers: report lines that do not fit, and go on\n";

int main(int argc, char **argv)
{
	struct ipcd_ring_options options;
	char text[256], *line = NULL;
	size_t size = 0;
	int64_t type = 1, timeout = -1;
	int option, failed = 0;

	ipcd_ring_options_init(&options);
	options.text = text;
	options.text_size = sizeof text;
	while ((option = getopt(argc, argv, "s:t:w")) != -1) {
		switch (option) {
		case 's':
			options.socket = optarg;
			break;
		case 't':
			type = strtoll(optarg, NULL, 10);
			break;
		case 'w':
			timeout = 0;
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc - 1 || type <= 0) {
		fputs(usage, stderr);
		return 2;
	}

	struct ipcd_ring_producer *producer;
	if (ipcd_ring_producer_open(&producer, argv[optind], &options) != 0) {
		fprintf(stderr, "example_pub: %s: %s\n", argv[optind], text);
		return 1;
	}
	for (;;) {
		ssize_t length = getline(&line, &size, stdin);
		if (length < 0)
			break;
		if (length > 0 && line[length - 1] == '\n')
			length--;
		int result = ipcd_ring_publish_wait(producer, type, line, (size_t)length, timeout);
		if (result != 0) {
			fprintf(stderr, "example_pub: a line of %zd bytes: %s\n", length, strerror(-result));
			failed = 1;
			if (result != -EAGAIN && result != -EMSGSIZE)
				break;
		}
	}
	fprintf(stderr, "example_pub: %llu messages in lane %llu\n", (unsigned long long)ipcd_ring_sequence(producer), (unsigned long long)ipcd_ring_lane(producer));
	free(line);
	ipcd_ring_producer_close(producer);
	return failed;
}
